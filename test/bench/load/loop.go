// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/meshtap/meshtap/test/bench/proc"
)

// scratchSize is what one read takes at most.
const scratchSize = 128 << 10

// Deps are what a generator is given from outside.
type Deps struct {
	// Now is a monotonic clock in nanoseconds; nil is the system's.
	Now func() int64
	// Proc reads the processor times of the watched process; its zero value reads nothing.
	Proc proc.FS
	// Ready is called once all idle connections stand; it returns when they may go. Jobs with Idle need it.
	Ready func()
}

// loop is one generator. All of it is owned by the goroutine in Run.
type loop struct {
	job      Job
	deps     Deps
	request  []byte // HTTP/1.1, whole
	response []byte
	up, down []byte // the bodies of a request and of an answer
	asks     heads  // HTTP/2
	answers  heads
	unsent   []*session // those with bytes that are sent at the end of a turn
	scratch  []byte
	epfd     int
	byFD     []endpoint

	clients    []*client
	cursor     int   // the client whose slot is next
	interval   int64 // between two slots of one client
	begin, end int64 // of the window
	measuring  bool
	started    int // of the clients
	answered   int // answers that have come
	sources    source
	histogram  *hdrhistogram.Histogram
	result     Result
	before     sample
}

// endpoint is what a descriptor belongs to.
type endpoint interface {
	ready(l *loop, events uint32)
}

// sample is what the processors had done at one end of the window.
type sample struct {
	at        int64
	proxy     proc.CPU
	core      proc.CoreTime
	generator proc.CPU
	ownCore   proc.CoreTime
}

// Run does a job. It holds its thread and, while it waits, its processor.
func Run(ctx context.Context, job Job, deps Deps) (Result, error) {
	if err := job.Validate(); err != nil {
		return Result{}, err
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return Result{}, fmt.Errorf("load: epoll: %w", err)
	}
	l := &loop{
		job: job, deps: deps, epfd: epfd, request: job.request(), response: job.response(),
		up: job.payload(job.Upload), down: job.payload(job.Body), asks: encode(job.asks()), answers: encode(job.answers()),
		scratch: make([]byte, scratchSize), histogram: NewHistogram(),
	}
	if l.deps.Now == nil {
		start := time.Now()
		l.deps.Now = func() int64 { return int64(time.Since(start)) }
	}
	defer l.closeAll()
	if err := l.listen(); err != nil {
		return Result{}, err
	}
	if err := l.run(ctx); err != nil {
		return Result{}, err
	}
	l.result.Latency, err = l.histogram.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	return l.result, err
}

func (l *loop) listen() error {
	n := len(l.job.Upstreams)
	l.result.Connections, l.result.Answers = make([]uint64, n), make([]uint64, n)
	for i, a := range l.job.Upstreams {
		fd, err := listen(a)
		if err != nil {
			return err
		}
		if err := l.add(fd, &listener{fd: fd, index: i}, unix.EPOLLIN); err != nil {
			return err
		}
	}
	return nil
}

func (l *loop) run(ctx context.Context) error {
	l.schedule()
	for range l.atOnce() {
		l.start()
	}
	l.flushAll()
	events := make([]unix.EpollEvent, 512)
	for {
		now := l.deps.Now()
		if done := l.phase(now); done || ctx.Err() != nil {
			l.finish(l.deps.Now())
			return ctx.Err()
		}
		timeout := 1 // millisecond, so that the window ends in time
		if l.job.Rate > 0 {
			l.due(now)
			timeout = 0 // a sleep would come late: the core is the generator's
			l.flushAll()
		}
		for _, e := range events[:wait(l.epfd, events, timeout)] {
			if p := l.byFD[e.Fd]; p != nil {
				p.ready(l, e.Events)
			}
		}
		l.flushAll()
	}
}

// atOnce is how many clients begin together. Of idle ones few do: the next begins when one has its answer, if it is to have one.
func (l *loop) atOnce() int {
	if l.job.Idle && !l.job.Held {
		return min(64, len(l.clients))
	}
	return len(l.clients)
}

// start lets the next client begin, if there is one.
func (l *loop) start() {
	if l.started == len(l.clients) {
		return
	}
	c := l.clients[l.started]
	l.started++
	switch {
	case l.job.Rate > 0 && c.over != nil:
		c.over.connect()
	case l.job.Rate > 0:
		l.dial(c)
	default:
		l.send(c, l.deps.Now())
	}
}

// schedule places the window and, with a rate, the slots: the clients are due one after another, evenly.
func (l *loop) schedule() {
	now := l.deps.Now()
	l.clients = make([]*client, l.job.Slots())
	sessions := l.sessions()
	l.begin = now + int64(l.job.Warm)
	l.end = l.begin + int64(l.job.Measure)
	if l.job.Rate > 0 {
		l.interval = int64(time.Second) * int64(len(l.clients)) / int64(l.job.Rate)
	}
	for i := range l.clients {
		l.clients[i] = &client{fd: -1, next: now + l.interval*int64(i)/int64(len(l.clients))}
		if len(sessions) > 0 { // in turn, so that those due together are on different connections
			l.clients[i].over = sessions[i%len(sessions)]
		}
	}
}

// phase opens and closes the window.
func (l *loop) phase(now int64) (done bool) {
	if l.job.Idle {
		switch {
		case l.answered == len(l.clients):
			l.flushAll() // windows given back, pings answered
			l.deps.Ready()
		case now < l.end:
			return false
		default:
			l.fault(&l.result.Errors, "%d of %d connections had an answer in time", l.answered, len(l.clients))
		}
		return true
	}
	if !l.measuring && now >= l.begin {
		l.measuring = true
		l.before = l.sample()
	}
	return now >= l.end
}

// due sends what is due. Clients are due in rotation; one that is busy owes the request.
func (l *loop) due(now int64) {
	for c := l.clients[l.cursor]; c.next <= now; c = l.clients[l.cursor] {
		c.owed++
		c.next += l.interval
		l.cursor = (l.cursor + 1) % len(l.clients)
		if !c.busy {
			l.pay(c)
		}
	}
}

// pay sends the oldest request that a client owes. Its latency counts from the slot, not from now.
func (l *loop) pay(c *client) {
	if c.owed > 0 {
		at := c.next - int64(c.owed)*l.interval
		c.owed--
		l.send(c, at)
	}
}

func (l *loop) sample() sample {
	s := sample{at: l.deps.Now()}
	if l.job.Watch > 0 {
		s.proxy, _ = l.deps.Proc.CPU(l.job.Watch)
		s.core, _ = l.deps.Proc.Core(l.job.Core)
		s.generator, _ = l.deps.Proc.CPU(l.deps.Proc.Self())
		s.ownCore, _ = l.deps.Proc.Core(l.job.OwnCore)
	}
	return s
}

// finish takes account of the window.
func (l *loop) finish(now int64) {
	if l.measuring {
		after := l.sample()
		l.result.Seconds = float64(after.at-l.before.at) / 1e9
		l.result.Proxy = after.proxy.Sub(l.before.proxy)
		l.result.Core = after.core.Sub(l.before.core)
		l.result.Generator = after.generator.Sub(l.before.generator)
		l.result.OwnCore = after.ownCore.Sub(l.before.ownCore)
	}
	for _, c := range l.clients {
		l.result.Backlog += c.owed
		if c.busy && now-c.sentAt > int64(time.Second) {
			l.result.Stuck++
		}
	}
}

// add watches a descriptor.
func (l *loop) add(fd int, p endpoint, events uint32) error {
	for fd >= len(l.byFD) {
		l.byFD = append(l.byFD, make([]endpoint, 1024)...)
	}
	l.byFD[fd] = p
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("load: epoll: %w", err)
	}
	return nil
}

func (l *loop) watch(fd int, events uint32) {
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (l *loop) remove(fd int) {
	l.byFD[fd] = nil
	_ = unix.Close(fd)
}

func (l *loop) closeAll() {
	for fd, p := range l.byFD {
		if p != nil {
			l.remove(fd)
		}
	}
	_ = unix.Close(l.epfd)
}

// fault counts an error and keeps the account of the first one.
func (l *loop) fault(count *uint64, format string, args ...any) {
	*count++
	if l.result.First == "" {
		l.result.First = fmt.Sprintf(format, args...)
	}
}
