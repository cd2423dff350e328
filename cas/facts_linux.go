package cas

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// filesystems that people have, by the magic number that statfs gives.
var filesystems = map[uint32]Facts{
	unix.EXT4_SUPER_MAGIC:      {Filesystem: "ext4"},
	unix.XFS_SUPER_MAGIC:       {Filesystem: "xfs"},
	unix.BTRFS_SUPER_MAGIC:     {Filesystem: "btrfs"},
	unix.F2FS_SUPER_MAGIC:      {Filesystem: "f2fs"},
	unix.TMPFS_MAGIC:           {Filesystem: "tmpfs"},
	0x2fc12fc1:                 {Filesystem: "zfs"},
	0xca451a4e:                 {Filesystem: "bcachefs"},
	unix.OVERLAYFS_SUPER_MAGIC: {Filesystem: "overlayfs"},
	unix.ECRYPTFS_SUPER_MAGIC:  {Filesystem: "ecryptfs"},
	unix.FUSE_SUPER_MAGIC:      {Filesystem: "fuse", Network: true}, // sshfs and the like; virtiofs too
	unix.NFS_SUPER_MAGIC:       {Filesystem: "nfs", Network: true},
	unix.CIFS_SUPER_MAGIC:      {Filesystem: "cifs", Network: true},
	unix.SMB2_SUPER_MAGIC:      {Filesystem: "smb", Network: true},
	unix.SMB_SUPER_MAGIC:       {Filesystem: "smb", Network: true},
	unix.CEPH_SUPER_MAGIC:      {Filesystem: "ceph", Network: true},
	unix.AFS_SUPER_MAGIC:       {Filesystem: "afs", Network: true},
	unix.V9FS_MAGIC:            {Filesystem: "9p", Network: true},
	0x0bd00bd0:                 {Filesystem: "lustre", Network: true},
	0x0bd00bd1:                 {Filesystem: "lustre", Network: true},
	0x0bd00bd3:                 {Filesystem: "lustre", Network: true},
	0x47504653:                 {Filesystem: "gpfs", Network: true},
	0x19830326:                 {Filesystem: "beegfs", Network: true},
	0x7461636f:                 {Filesystem: "ocfs2", Network: true},
	0x01161970:                 {Filesystem: "gfs2", Network: true},
}

func filesystemFacts(st *unix.Statfs_t) Facts {
	magic := uint32(st.Type)
	if f, ok := filesystems[magic]; ok {
		return f
	}
	return Facts{Filesystem: fmt.Sprintf("type %#x", magic)}
}

// madeUp are filesystems whose inode numbers or times say nothing about
// another mount of them: those that programs serve (sshfs numbers files as they
// are asked for) and images, where both are the same in each that a
// reproducible build makes.
var madeUp = map[uint32]bool{
	unix.FUSE_SUPER_MAGIC:     true,
	unix.SQUASHFS_MAGIC:       true,
	unix.EROFS_SUPER_MAGIC_V1: true,
	unix.CRAMFS_MAGIC:         true,
	unix.ISOFS_SUPER_MAGIC:    true,
	unix.UDF_SUPER_MAGIC:      true,
	unix.MSDOS_SUPER_MAGIC:    true, // and vfat
	unix.EXFAT_SUPER_MAGIC:    true,
	0x7366746e:                true, // ntfs3
}

// lastingInodes reports whether device, inode number, size, mtime and ctime
// of the file at path are those of no other file, ever.
func lastingInodes(path string) bool {
	var st unix.Statfs_t
	err := retryEINTR(func() error { return unix.Statfs(path, &st) })
	return err == nil && !madeUp[uint32(st.Type)]
}
