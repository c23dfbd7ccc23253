package authn

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever was fetched, refused or closed meanwhile, no goroutine of it is left.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
