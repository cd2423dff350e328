package main

const watchTopic = `The server of a mount counts what programs do with it. "curi status" shows that,
"curi status --json" has all of it as mounts[].stats, and a mount made with
-o metrics=ADDR tells Prometheus at http://ADDR/metrics. Counting begins when the
mount begins to serve. stats is null where a mount cannot be asked: it is another
user's, in another mount namespace, or its server hangs.

What the kernel serves by itself nobody can count: reads and writes of a file that
was opened by passthrough, what its caches hold, and opens of a run's inputs of many
small files where root made the mount, of which only look-ups and first reads show.

    stats               at /metrics (curi_mount_…)
    uptime_seconds      uptime_seconds
    opens               opens_total, both        files opened
    passthrough_opens   opens_total{by="passthrough"}   of these, those whose bytes
                                                 the kernel moves by itself
    open_files          open_files               open now
    open_dirs           open_directories         directories open now
    reads, writes       read_requests_total, write_requests_total   requests that
                                                 reached the server
    read_bytes, written_bytes   read_bytes_total, written_bytes_total   their bytes
    lookups             lookups_total            names that the kernel did not know,
                                                 or no more
    cache_hits          cache_hits_total         opens of stored files, not by
                                                 passthrough, during which the kernel
                                                 asked for no byte: its cache had all
                                                 that the program read
    cache_misses        cache_misses_total       those during which it asked
    refreshes           refreshes_total          times the names were looked through
                                                 for changes
    errors              errors_total{class=…}    requests answered with an error

The classes of errors:

    io        EIO, ESTALE and all that nobody foresaw: look at the server's log, and
              run curi fsck
    space     ENOSPC, EDQUOT
    refused   EROFS, EACCES, EPERM: a program wanted to change what is read-only
    busy      EBUSY, EAGAIN, ETXTBSY, EDEADLK, EINTR
    limit     EMFILE, ENFILE, ENOMEM, EMLINK, ENAMETOOLONG, EFBIG, ELOOP, E2BIG
    absent    ENOENT, ENODATA: programs look for what may not be there
    other     EEXIST, ENOTEMPTY, ENOTDIR, EISDIR, EINVAL, EXDEV, EOPNOTSUPP, ENOTTY,
              ERANGE, ENXIO, EBADF

/metrics has no names of files, artifacts or directories. It answers whoever can
reach its address, other users of this machine too; a bare port is on 127.0.0.1. An
ADDR with a host, such as 0.0.0.0:9100, opens it to the network: there is neither
encryption nor a password.

"curi mount --debug" (curifs --debug) writes a line for every request to stderr: what
it was, the path below the mount, the answer, how long it took, and the process.
`
