package bridge

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever was connected, refused or ended, no goroutine of it is left.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
