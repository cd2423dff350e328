package cas

import "sync/atomic"

// meter tells a [Progress] how far things are, not more often than it helps.
type meter struct {
	fn                     Progress
	totalBytes, totalFiles int64
	doneBytes, doneFiles   atomic.Int64
	told                   atomic.Int64
}

// meterStep is after how many bytes or files a meter tells.
const (
	meterBytes = 4 << 20
	meterFiles = 64
)

func (m *meter) bytes(n int64) {
	if done := m.doneBytes.Add(n); m.fn != nil {
		if told := m.told.Load(); done-told >= meterBytes && m.told.CompareAndSwap(told, done) {
			m.tell()
		}
	}
}

func (m *meter) file() {
	if done := m.doneFiles.Add(1); m.fn != nil && (done%meterFiles == 0 || done == m.totalFiles) {
		m.tell()
	}
}

func (m *meter) tell() {
	done, total := m.doneBytes.Load(), m.totalBytes
	if total > 0 {
		total = max(total, done) // a file grew; where no size is known, none is made up
	}
	m.fn(done, total, m.doneFiles.Load(), m.totalFiles)
}
