package effort

import (
	"runtime/debug"
	"strings"
	"testing"
)

// A Test is a line of Tests.
type Test struct {
	Package string // below the module
	Name    string // of the test, or of a part of it
	Gate    int    // how many seeds or turns in every run
	Race    int    // how many under the race detector, where each is one goroutine; 0 for Gate
	Least   int    // how many when soaking, whatever the time
	Share   int    // of the time when soaking
}

// Tests are all that try seeds or turns, as many as there is time for. Least is what
// a soak promises: thousands of crash points, fifty kills of a cluster's node.
var Tests = []Test{
	{Package: "broker", Name: "TestMachineModel", Gate: 10, Race: 1, Least: 8, Share: 8},
	{Package: "broker", Name: "TestMixedModel", Gate: 24, Race: 1, Least: 8, Share: 12},
	{Package: "broker", Name: "TestSharedModel", Gate: 8, Race: 1, Least: 6, Share: 12},
	{Package: "broker", Name: "TestDeliveryModel", Gate: 30, Race: 6, Least: 20, Share: 6},
	{Package: "broker", Name: "TestScanModel", Gate: 12, Race: 4, Least: 10, Share: 2},
	{Package: "broker", Name: "TestEachProposalIsOrderedOnce", Gate: 8, Least: 10, Share: 2},
	{Package: "broker", Name: "TestSessionsRoam", Gate: 6, Race: 2, Least: 6, Share: 4},
	{Package: "broker/store", Name: "TestCrashLeavesWholeEntries", Gate: 6, Race: 2, Least: 50, Share: 2},
	{Package: "profiles/state", Name: "TestProfile/histories", Gate: 1, Least: 1, Share: 4},
	{Package: "profiles/state", Name: "TestProfile/silence", Gate: 1, Least: 1, Share: 2},
	{Package: "profiles/example", Name: "TestProfile/histories", Gate: 1, Least: 1, Share: 1},
	{Package: "profiles/example", Name: "TestProfile/silence", Gate: 1, Least: 1, Share: 1},
	{Package: "cluster/raftlog", Name: "TestLogAgainstModel", Gate: 20, Race: 3, Least: 50, Share: 2},
	{Package: "cluster/raftlog", Name: "TestPowerCuts", Gate: 2, Least: 15, Share: 4},
	{Package: "cluster/raftlog", Name: "TestSnapshotPowerCuts", Gate: 8, Least: 10, Share: 2},
	{Package: "cluster/raftlog", Name: "TestSnapshotGoesOn", Gate: 20, Least: 20, Share: 1},
	{Package: "cluster", Name: "TestNodePowerCuts", Gate: 2, Least: 10, Share: 4},
	{Package: "cluster", Name: "TestKilledUnderLoad", Gate: 4, Least: 10, Share: 2},
	{Package: "cluster", Name: "TestSnapshotGoesOn", Gate: 3, Race: 2, Least: 3, Share: 1},
	{Package: "cluster/clustertest", Name: "TestSimulation", Gate: 6, Race: 1, Least: 8, Share: 8},
	{Package: "cluster/clustertest", Name: "TestMachineSurvivesPowerCuts", Gate: 3, Least: 10, Share: 2},
	{Package: "cluster/clustertest", Name: "TestSnapshotsGoOn", Gate: 3, Least: 3, Share: 2},
	{Package: "cluster/clustertest", Name: "TestStreamsAreNeverGarbled", Gate: 8, Race: 2, Least: 8, Share: 1},
	{Package: "blackbox", Name: "TestKillUnderLoad", Gate: 5, Least: 8, Share: 4},
	{Package: "blackbox", Name: "TestKillUnderLoadExactlyOnce", Gate: 3, Least: 4, Share: 2},
	{Package: "blackbox", Name: "TestMQTT24ExactlyOnceThroughReconnects", Gate: 2, Least: 3, Share: 1},
	{Package: "blackbox", Name: "TestPowerCutUnderLoad", Gate: 2, Least: 4, Share: 2},
	{Package: "blackbox", Name: "TestS27OrderThroughDeath", Gate: 1, Least: 2, Share: 1},
	{Package: "blackbox", Name: "TestMessagesBetweenTwoThroughKills", Gate: 1, Least: 2, Share: 1},
	{Package: "blackbox", Name: "TestHostileClientsHarmNobody", Gate: 1500, Least: 5000, Share: 1},
	{Package: "blackbox", Name: "TestProtocolModel", Gate: 20, Least: 100, Share: 3}, // 80 steps each
	{Package: "blackbox", Name: "TestNoLeak", Gate: 2, Least: 100, Share: 6},         // 10,000 events and other acts each
	{Package: "blackbox", Name: "TestClusterNoLeak", Gate: 1, Least: 5, Share: 3},
	{Package: "blackbox", Name: "TestClusterKills", Gate: 1, Least: 17, Share: 6}, // three kills in each
	{Package: "blackbox", Name: "TestClusterAllKilled", Gate: 2, Least: 5, Share: 2},
	{Package: "blackbox", Name: "TestClusterLeaderStandsStill", Gate: 1, Least: 1, Share: 1},
	{Package: "blackbox", Name: "TestClusterExactlyOnce", Gate: 4, Least: 10, Share: 2},
	{Package: "blackbox", Name: "TestClusterFlippedBit", Gate: 4, Least: 4, Share: 1},
	{Package: "blackbox", Name: "TestClusterDamagedTail", Gate: 2, Least: 2, Share: 1},
	{Package: "blackbox", Name: "TestClusterPowerCutOfOne", Gate: 2, Least: 5, Share: 2},
	{Package: "blackbox", Name: "TestClusterPowerCut", Gate: 2, Least: 5, Share: 2},
	{Package: "blackbox", Name: "TestClusterPartitions", Gate: 1, Least: 1, Share: 2}, // of each kind, one after the other
	{Package: "blackbox", Name: "TestClusterRealClientsRoam", Gate: 3, Least: 3, Share: 1},
	{Package: "blackbox", Name: "TestClusterRetainedIsLinearizable", Gate: 3, Least: 3, Share: 1},
	{Package: "blackbox", Name: "TestClusterSessionHasOneOwner", Gate: 3, Least: 3, Share: 1},
}

// Long are the tests that are longer when soaking, or under a greater load, and try
// neither seeds nor turns.
var Long = []struct {
	Package string
	Tests   []string
}{
	{"acl", []string{"TestEveryChangeOfEveryZone"}},
	{"broker", []string{"TestLargeEdgeIsPassedInPieces", "TestBurstIsOrderedInPieces"}},
	{"broker/topic", []string{"TestLookupIsFresh"}},
	{"cluster/raftlog", []string{"TestDamagedStreamIsRefused", "TestTrapDamagedTail", "TestRingAgainstModel"}},
	{"blackbox", []string{
		"TestClusterCatchUp",
		"TestClusterBrokenDisk",
		"TestClusterSlowDisk",
		"TestClusterFullDisk",
		"TestClusterVolumeFull",
		"TestClusterStrangers",
		"TestClusterWipedNode",
		"TestClusterOwnersDecideWithinASecond",
		"TestClusterFlapping",
		"TestClusterPolicyWithinASecond",
		"TestClusterIsQuiet",
		"TestClusterRollingRestart",
		"TestMQTT48RetainedIsComplete",
		"TestClusterRollingUpgrade",
	}},
}

// of returns the line of a test. Not to have one is the test's end.
func of(t testing.TB) Test {
	t.Helper()
	pkg := tested()
	for _, one := range Tests {
		if one.Package == pkg && one.Name == t.Name() {
			return one
		}
	}
	t.Fatalf("%s of %s has no line in internal/effort, which says how much it is to try", t.Name(), pkg)
	return Test{}
}

// tested returns which package of the module this is the test program of.
func tested() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	pkg := strings.TrimSuffix(info.Path, ".test")
	return strings.TrimPrefix(pkg, info.Main.Path+"/")
}

// due returns how many seeds or turns there are at least.
func (one Test) due() int {
	switch {
	case Soaking():
		return one.Least
	case underRace && one.Race > 0:
		return one.Race
	}
	return one.Gate
}
