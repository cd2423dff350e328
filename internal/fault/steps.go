// Package fault lets tests end, stop or fail a program at a named step. Only a
// build with the tag curifault can: in all others the calls are empty and the
// compiler leaves nothing of them.
//
// In such a build the environment chooses:
//
//	CURI_FAULT=[ROLE/]NAME[#N[+]]=ACTION;…
//
// ROLE is curi, guard or curifs; without, each of them. NAME is that of a
// [Step] or a [Call], or * for any. The rule holds the N-th time that one
// process gets there, the first by default; with + from then on. ACTION is
//
//	kill          kill -9 of the process itself
//	stop          SIGSTOP of the process itself; SIGCONT lets it go on
//	sleep:50ms    a pause
//	eio           of a Call: it fails with EIO and does nothing
//
// CURI_FAULT_TRACE names a file that gets a line "ROLE PID NAME N" for every
// step and call. CURI_FAULT_CLOCK names one with a duration such as -24h, by
// which the wall clock is wrong from then on; it may be written meanwhile.
// CURI_FAULT_TIMES=NAME=DURATION;… makes waits that a program knows by a name
// shorter, or longer.
package fault

// A Step is a moment at which a program may die. The constants are all there
// are; each is reached at one place of the code.
type Step string

// Adding and sealing.
const (
	PublishStaged  Step = "publish.staged"  // all that is to be stored lies in staging, nothing is durable
	PublishDurable Step = "publish.durable" // it is durable, and nothing has its name
	PublishBlob    Step = "publish.blob"    // the next blob is about to get its name
	PublishBlobs   Step = "publish.blobs"   // all blobs have theirs, no tree has
	PublishTrees   Step = "publish.trees"   // the trees are stored, nothing keeps them from being collected
	SealHashed     Step = "seal.hashed"     // an output's file was read under its lease and is as the program left it
	SealPrepared   Step = "seal.prepared"   // it is read-only, still in its place
	SealNamed      Step = "seal.named"      // it is a blob, its lease is held still
	SealStored     Step = "seal.stored"     // all is stored, what is left in the place is not removed
)

// Small files: refs, pins, states, registrations.
const (
	FileStaged   Step = "file.staged"   // the bytes lie in staging
	FileNamed    Step = "file.named"    // the file has its name, which is not durable
	VersionTaken Step = "version.taken" // a version has its number, its tag is not moved
	RemoveTag    Step = "remove.tag"    // the tags of a version are gone, the version is there
)

// Collecting, checking out, views.
const (
	CollectMarked  Step = "collect.marked"  // all that is needed is known, nothing is removed
	CollectRefs    Step = "collect.refs"    // expired refs are gone, their trees are there
	CollectTrees   Step = "collect.trees"   // trees are gone, their blobs are there
	CollectPlace   Step = "collect.place"   // an old place is out of sight, and there
	CheckoutMade   Step = "checkout.made"   // the directory is made, nothing is in it
	CheckoutFilled Step = "checkout.filled" // everything is in it, it is not done
	ViewBuilt      Step = "view.built"      // a view is whole and has no name
)

// Locks and mounts.
const (
	LockTaken       Step = "lock.taken"       // a lock is held and does not say by whom
	TakeoverReady   Step = "takeover.ready"   // the lock that is to replace a silent host's is made
	TakeoverDone    Step = "takeover.done"    // it is in place
	MountStarting   Step = "mount.starting"   // curi holds the right to start a mount, no server runs
	MountAttached   Step = "mount.attached"   // the kernel shows the mount, nobody may use it
	MountRegistered Step = "mount.registered" // it may be used, nobody was told that it serves
	MountServing    Step = "mount.serving"    // curi was told that it serves, and does not hold it yet
	MountWithdrawn  Step = "mount.withdrawn"  // nobody may use it any more, the kernel shows it
	MountMade       Step = "mount.made"       // a program's file is on the disk, the kernel was not told
	MountFound      Step = "mount.found"      // a file of a place was looked up, the kernel was not told
)

// A run.
const (
	RunLocked      Step = "run.locked"      // the key is held
	RunPlaced      Step = "run.placed"      // the place is made anew
	RunBegun       Step = "run.begun"       // the log of runs says that it runs
	RunOpened      Step = "run.opened"      // the place may be written
	GuardSpawned   Step = "guard.spawned"   // the guard lives and has no orders
	GuardReady     Step = "guard.ready"     // in the guard: it has them
	GuardForked    Step = "guard.forked"    // in the guard: the command runs, curi does not know
	GuardEmpty     Step = "guard.empty"     // in the guard: nothing is left of the command, curi does not know
	GuardSettled   Step = "guard.settled"   // in the guard: curi died, and the run is about to be marked as lost
	RunEnded       Step = "run.ended"       // nothing is left of the command, nothing is sealed
	PlaceMarked    Step = "place.marked"    // the place is marked as closed, changes under way have not ended
	RunSealed      Step = "run.sealed"      // an output is stored and named
	RunStored      Step = "run.stored"      // the run's tree is stored, nothing names it
	RunRecorded    Step = "run.recorded"    // the log of runs says how it ended, the key has no result
	RunOwed        Step = "run.owed"        // remotes are to get the result, which is not the key's yet
	RunPublished   Step = "run.published"   // the key has its result, the place is the run's still
	RunClosed      Step = "run.closed"      // the place says that no run has it
	SnapshotStored Step = "snapshot.stored" // a snapshot of work directories is stored, nothing names it
	LostMarked     Step = "lost.marked"     // a dead run is marked as lost, its place is not closed
)

// Remotes.
const (
	ObjectStaged  Step = "object.staged"  // an object of a directory is durable and has no name
	ObjectNamed   Step = "object.named"   // it has its name, which is not durable
	PushPack      Step = "push.pack"      // a pack is there, no recipe tells what is in it
	PushSent      Step = "push.sent"      // all packs are, the recipe is not
	PushRecipe    Step = "push.recipe"    // the recipe is there, nothing names the tree
	PushNamed     Step = "push.named"     // a version names it, the store does not know that
	ResultNamed   Step = "result.named"   // a key has its result there, snapshots of its work directories are there still
	PartialCame   Step = "partial.came"   // bytes of a large file came, the map does not tell of them
	PartialProved Step = "partial.proved" // it is whole and its outboard is stored, the bytes are no blob
	PartialNamed  Step = "partial.named"  // they are, the map is there
	PullPart      Step = "pull.part"      // a part of a large file came
	PullFetched   Step = "pull.fetched"   // all bytes came, the trees are not stored
	LeaseBeat     Step = "lease.beat"     // a lease's next sign of life is due, and not given
	LeaseBeaten   Step = "lease.beaten"   // it is given
	RoundOpened   Step = "round.opened"   // a round of collecting a remote says what may go
	RoundDecided  Step = "round.decided"  // it is decided that it goes, nothing is removed
	RoundRecipes  Step = "round.recipes"  // recipes are removed, their packs are there
	RoundSwept    Step = "round.swept"    // all is, and nothing says so
)

// A Call is a kind of input or output that may fail, at any of several places.
type Call string

const (
	Read       Call = "read"        // of bytes that are stored, or are to be
	Write      Call = "write"       // into the store
	Sync       Call = "sync"        // of a file, a directory or the filesystem
	Rename     Call = "rename"      // or link, of what gets its name
	MountRead  Call = "mount.read"  // that a mount answers
	MountWrite Call = "mount.write" //
	MountSync  Call = "mount.sync"  //
)
