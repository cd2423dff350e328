// Curifs mounts a store and serves the mount until it is unmounted, a signal
// ends it, or, with -o auto, its last user has gone.
//
//	curifs STORE DIR [-o OPTION,…] [--ready-fd N]
//
// It runs on Linux. A line of fstab mounts a store at boot when curifs is
// installed as /sbin/mount.curi too, in which case it goes to the background:
//
//	/data/store  /mnt/curi  curi  allow_other,_netdev  0 0
package main
