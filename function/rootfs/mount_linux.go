package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayOptions are those that do not name folders. A layer is to be usable as it is wherever the root is, so nothing may be written into
// the upper folder that holds in this place only: no index of file handles (index), no data that stays below (metacopy), no names of
// folders in other layers (redirect_dir).
var overlayOptions = [][2]string{{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "off"}}

// mountOverlay mounts an overlay at target. The topmost lower folder comes first.
func mountOverlay(target string, lowers []string, upper, work string) error {
	err := mountByDescriptor(target, lowers, upper, work)
	if errors.Is(err, errOldKernel) {
		err = mountByText(target, lowers, upper, work)
	}
	return err
}

// errOldKernel says that the kernel cannot add one lower folder after the other (Linux 6.8 and newer do).
var errOldKernel = errors.New("kernel is too old")

// mountByDescriptor mounts with fsconfig(2), which takes any number of folders, of any name.
func mountByDescriptor(target string, lowers []string, upper, work string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%w: fsopen: %w", errOldKernel, err)
	}
	defer unix.Close(fd)
	for _, lower := range lowers {
		switch err := unix.FsconfigSetString(fd, "lowerdir+", lower); {
		case err == nil:
		case errors.Is(err, unix.EINVAL):
			return fmt.Errorf("%w: fsconfig: %w", errOldKernel, err)
		default:
			return fmt.Errorf("lower folder %s: %w", lower, err)
		}
	}
	for _, o := range append([][2]string{{"upperdir", upper}, {"workdir", work}}, overlayOptions...) {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return fmt.Errorf("option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("%w%s", err, kernelWords(fd))
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return makePrivate(target)
}

// kernelWords returns what the kernel says about a mount that it refused.
func kernelWords(fd int) string {
	var b strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil || n <= 0 {
			return b.String()
		}
		b.WriteString("; " + strings.TrimSpace(string(buf[:n])))
	}
}

// maxMountText is what mount(2) takes as options: a page, with its last byte zero.
var maxMountText = os.Getpagesize() - 1

// mountByText mounts with mount(2), which takes a page of text.
func mountByText(target string, lowers []string, upper, work string) error {
	escaped := make([]string, len(lowers))
	for i, lower := range lowers {
		escaped[i] = escapeLower.Replace(lower)
	}
	text := "lowerdir=" + strings.Join(escaped, ":") + ",upperdir=" + escapeOption.Replace(upper) + ",workdir=" + escapeOption.Replace(work)
	for _, o := range overlayOptions {
		text += "," + o[0] + "=" + o[1]
	}
	if len(text) > maxMountText {
		return fmt.Errorf("%d layers need %d bytes of options, and this kernel takes %d: use Linux 6.8 or newer, or an image of fewer layers",
			len(lowers), len(text), maxMountText)
	}
	if err := unix.Mount("overlay", target, "overlay", 0, text); err != nil {
		return err
	}
	return makePrivate(target)
}

// The kernel splits options at commas, and lower folders at colons, where no backslash is before them.
var (
	escapeOption = strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	escapeLower  = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`)
)

func makePrivate(target string) error {
	if err := unix.Mount("", target, "", unix.MS_PRIVATE, ""); err != nil {
		return errors.Join(fmt.Errorf("make the mount private: %w", err), unix.Unmount(target, unix.MNT_DETACH))
	}
	return nil
}
