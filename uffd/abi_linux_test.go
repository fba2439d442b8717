//go:build linux && (amd64 || arm64)

package uffd

import "testing"

// The numbers that <linux/userfaultfd.h> comes to on machines with the generic layout of ioctl numbers.
func TestIoctlNumbersAreThoseOfTheHeader(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"USERFAULTFD_IOC_NEW", ioNew, 0x0000aa00},
		{"UFFDIO_API", ioAPI, 0xc018aa3f},
		{"UFFDIO_REGISTER", ioRegister, 0xc020aa00},
		{"UFFDIO_UNREGISTER", ioUnregister, 0x8010aa01},
		{"UFFDIO_WAKE", ioWake, 0x8010aa02},
		{"UFFDIO_COPY", ioCopy, 0xc028aa03},
		{"UFFDIO_ZEROPAGE", ioZeropage, 0xc020aa04},
		{"UFFDIO_MOVE", ioMove, 0xc028aa05},
		{"UFFDIO_WRITEPROTECT", ioWriteProtect, 0xc018aa06},
		{"UFFDIO_CONTINUE", ioContinue, 0xc020aa07},
		{"UFFDIO_POISON", ioPoison, 0xc020aa08},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}
