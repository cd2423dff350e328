package main_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A network is machines with one network each, which reach a server and not
// each other: network namespaces, and a pair of links for each machine.
//
// Addresses are those of the namespaces alone. The server is at serverAddr.
type network struct {
	t      *testing.T
	prefix string // of the names of namespaces
	links  map[string]string
}

const serverAddr = "10.201.255.1"

func newNetwork(t *testing.T, machines ...string) *network {
	t.Helper()
	need(t, os.Getuid() == 0, "root, to make network namespaces")
	for _, program := range []string{"ip", "tc", "nsenter"} {
		_, err := exec.LookPath(program)
		need(t, err == nil, program)
	}
	n := &network{t: t, prefix: fmt.Sprintf("curi%08x-", rand.Uint32()), links: map[string]string{}}
	n.add("server")
	n.ip("server", "addr", "add", serverAddr+"/32", "dev", "lo")
	for i, m := range machines {
		n.add(m)
		link := fmt.Sprintf("to%d", i)
		n.links[m] = link
		n.do("ip", "link", "add", link, "netns", n.prefix+"server", "type", "veth", "peer", "name", "net0", "netns", n.prefix+m)
		n.ip("server", "addr", "add", fmt.Sprintf("10.201.%d.1/24", i), "dev", link)
		n.ip("server", "link", "set", link, "up")
		n.ip(m, "addr", "add", fmt.Sprintf("10.201.%d.2/24", i), "dev", "net0")
		n.up(m)
	}
	return n
}

// add makes a namespace.
func (n *network) add(name string) {
	n.t.Helper()
	n.do("ip", "netns", "add", n.prefix+name)
	n.t.Cleanup(func() { n.do("ip", "netns", "del", n.prefix+name) })
	n.ip(name, "link", "set", "lo", "up")
}

func (n *network) ip(machine string, args ...string) {
	n.t.Helper()
	n.do("ip", append([]string{"-n", n.prefix + machine}, args...)...)
}

func (n *network) do(program string, args ...string) {
	n.t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
}

// up connects a machine, and down cuts its link.
func (n *network) up(machine string) {
	n.t.Helper()
	n.ip(machine, "link", "set", "net0", "up")
	n.ip(machine, "route", "replace", serverAddr, "via", n.ip4(machine))
}

func (n *network) down(machine string) {
	n.t.Helper()
	n.ip(machine, "link", "set", "net0", "down")
}

// ip4 is the server's end of a machine's link.
func (n *network) ip4(machine string) string {
	return fmt.Sprintf("10.201.%s.1", strings.TrimPrefix(n.links[machine], "to"))
}

// throttle bounds what a machine receives, such as "40mbit".
func (n *network) throttle(machine, rate string) {
	n.t.Helper()
	n.do("tc", "-n", n.prefix+"server", "qdisc", "replace", "dev", n.links[machine], "root", "tbf", "rate", rate, "burst", "64kb", "latency", "200ms")
}

// enter is how a program is started on a machine.
func (n *network) enter(machine string) []string {
	return []string{"nsenter", "--net=/run/netns/" + n.prefix + machine, "--"}
}

// on calls fn on a thread that is on a machine: sockets that it makes stay there.
func (n *network) on(machine string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		f, err := os.Open("/run/netns/" + n.prefix + machine)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// A relay on the server's machine passes connections on, half a round trip
// later each way, and can cut them. A kernel need not have a queue that delays.
type relay struct {
	n      *network
	addr   string // HOST:PORT that it is at
	to     string
	delay  time.Duration // one way
	listen net.Listener

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
	wg    sync.WaitGroup
}

func newRelay(n *network, to string, roundTrip time.Duration) *relay {
	n.t.Helper()
	r := &relay{n: n, to: to, delay: roundTrip / 2, conns: map[net.Conn]bool{}}
	err := n.on("server", func() (err error) {
		r.listen, err = net.Listen("tcp", serverAddr+":0")
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	r.addr = r.listen.Addr().String()
	r.wg.Go(func() {
		for {
			c, err := r.listen.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(c) })
		}
	})
	n.t.Cleanup(func() {
		r.listen.Close()
		r.away(true)
		r.wg.Wait()
	})
	return r
}

// away cuts all connections and refuses new ones, or ends that.
func (r *relay) away(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = yes
	for c := range r.conns {
		if yes {
			c.Close()
		}
	}
}

// take notes a connection, unless they are cut.
func (r *relay) take(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		c.Close()
		return false
	}
	r.conns[c] = true
	return true
}

func (r *relay) end(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	c.Close()
}

func (r *relay) pass(c net.Conn) {
	if !r.take(c) {
		return
	}
	defer r.end(c)
	time.Sleep(2 * r.delay) // the handshake's
	var far net.Conn
	err := r.n.on("server", func() (err error) {
		far, err = net.Dial("tcp", r.to)
		return err
	})
	if err != nil || !r.take(far) {
		return
	}
	defer r.end(far)
	var wg sync.WaitGroup
	wg.Go(func() { r.copy(far, c) })
	wg.Go(func() { r.copy(c, far) })
	wg.Wait()
}

// copy passes bytes on when they are delay old.
func (r *relay) copy(to, from net.Conn) {
	type piece struct {
		b  []byte
		at time.Time
	}
	// As much as a link with that delay would hold.
	pieces := make(chan piece, 256)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer to.Close()
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			if _, err := to.Write(p.b); err != nil {
				from.Close()
				break
			}
		}
		for range pieces {
		}
	})
	for {
		b := make([]byte, 64<<10)
		k, err := from.Read(b)
		if k > 0 {
			pieces <- piece{b[:k], time.Now().Add(r.delay)}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	wg.Wait()
}
