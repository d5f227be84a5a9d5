//! What a program uses: a client, its options, and one call per report.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ttmem_wire::{BufferType, Geometry, Header, KernelKind, Kind, Note, TraceContext};

use crate::books::Books;
use crate::holdings::{Statistic, buffer_type_byte};
use crate::lanes::{Board, Lanes};
use crate::options::{Options, Overrun};
use crate::wake::Wake;
use crate::watch::Watch;
use crate::{fork, pump, thread_lane};

/// How often [`Client::flush`] looks.
const FLUSH_INTERVAL: Duration = Duration::from_micros(200);
/// How long [`Client::device_closed`] waits for a server without rings to take what was reported before. Nobody closes a device often.
const CLOSING_WAIT_MAX: Duration = Duration::from_millis(250);

/// Reports what this process holds. One is enough for a process; it may be used from any thread, and cloned.
///
/// A fork of the process begins with nothing held and a connection of its own. When the last clone is dropped, nothing waits: a thread sends
/// what has been reported, for half a second at most, and ends.
///
/// Reports may come from anywhere but a signal handler, which may have interrupted a report: from destructors of thread-local values and from
/// `atexit` handlers as well.
#[derive(Clone)]
pub struct Client {
    root: Arc<Root>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("options", &self.root.options).finish_non_exhaustive()
    }
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// A client with the default options. It does nothing before the first report.
    pub fn new() -> Client {
        Client::with_options(Options::default())
    }

    /// A client with options of its own.
    pub fn with_options(options: Options) -> Client {
        fork::watch();
        Client {
            root: Arc::new(Root {
                options,
                current: AtomicPtr::new(ptr::null_mut()),
                lost: AtomicU64::new(0),
            }),
        }
    }

    /// A buffer was allocated; to be reported after it was. The id is unique among the live buffers of the device.
    #[inline]
    pub fn allocated(&self, device: u16, buffer_type: BufferType, buffer_id: u64, size_bytes: u64) {
        let buffer_type = buffer_type_byte(buffer_type);
        self.report(&Header {
            device_id: i32::from(device),
            size_bytes,
            buffer_type,
            buffer_id,
            ..Header::request(Kind::Alloc)
        });
    }

    /// A buffer is about to be freed.
    #[inline]
    pub fn freed(&self, device: u16, buffer_id: u64) {
        self.report(&Header { device_id: i32::from(device), buffer_id, ..Header::request(Kind::Free) });
    }

    /// A buffer goes with its device, which is closed.
    pub fn freed_by_close(&self, device: u16, buffer_id: u64) {
        self.report(&Header {
            device_id: i32::from(device),
            buffer_type: ttmem_wire::FREED_BY_CLOSE,
            buffer_id,
            ..Header::request(Kind::Free)
        });
    }

    /// A device is about to be closed: everything that this process holds on it, by its own reports, goes with it.
    pub fn device_closed(&self, device: u16) {
        let Some(shared) = self.root.known() else { return };
        let begin = Instant::now();
        let reports = loop {
            let mut books = shared.books();
            if books.catch_up() || begin.elapsed() > CLOSING_WAIT_MAX {
                break books.holdings.closing(i32::from(device));
            }
            drop(books);
            std::thread::sleep(FLUSH_INTERVAL);
        };
        reports.iter().for_each(|header| self.report(header));
    }

    /// A circular buffer was placed in L1.
    #[inline]
    pub fn circular_buffer_allocated(&self, device: u16, size_bytes: u64) {
        self.report(&by_size(Kind::CbAlloc, device, 0, size_bytes));
    }

    /// A circular buffer is about to be removed from L1.
    #[inline]
    pub fn circular_buffer_freed(&self, device: u16, size_bytes: u64) {
        self.report(&by_size(Kind::CbFree, device, 0, size_bytes));
    }

    /// Kernel code was placed in L1.
    #[inline]
    pub fn kernel_loaded(&self, device: u16, kind: KernelKind, size_bytes: u64) {
        self.report(&by_size(Kind::KernelLoad, device, kind.encode(), size_bytes));
    }

    /// Kernel code is about to be removed from L1.
    #[inline]
    pub fn kernel_unloaded(&self, device: u16, kind: KernelKind, size_bytes: u64) {
        self.report(&by_size(Kind::KernelUnload, device, kind.encode(), size_bytes));
    }

    /// An allocator had no room: what was asked for, all that was free, and the largest block of it.
    pub fn allocation_failed(
        &self,
        device: u16,
        buffer_type: BufferType,
        requested_bytes: u64,
        free_bytes: u64,
        largest_free_block_bytes: u64,
    ) {
        self.report(&Header {
            device_id: i32::from(device),
            size_bytes: requested_bytes,
            buffer_type: buffer_type_byte(buffer_type),
            buffer_id: largest_free_block_bytes,
            timestamp_ns: free_bytes,
            ..Header::request(Kind::AllocationFailed)
        });
    }

    /// This process belongs to that trace: its spans become children of the one that is named. The first who says so is heard; once the
    /// server has made a span of the process, nobody is. [`Options::trace`] is told by itself.
    pub fn trace_context(&self, context: TraceContext) {
        self.report(&context.encode());
    }

    /// What an allocator can hand out on a device, empty or not, and in how many equal banks; 0 if that is not known.
    pub fn capacity(&self, device: u16, buffer_type: BufferType, size_bytes: u64, banks: u32) {
        self.report(&Header {
            device_id: i32::from(device),
            size_bytes,
            buffer_type: buffer_type_byte(buffer_type),
            buffer_id: u64::from(banks),
            ..Header::request(Kind::Capacity)
        });
    }

    /// What keeps this process from telling everything: a line for the server's log.
    pub fn note(&self, note: Note) {
        self.report(&Header { buffer_type: note.encode(), ..Header::request(Kind::Note) });
    }

    /// What this process holds and has held, by its own reports; no server is asked.
    pub fn statistics(&self) -> Vec<Statistic> {
        let Some(shared) = self.root.known() else { return Vec::new() };
        let mut books = shared.books();
        books.catch_up();
        books.holdings.statistics()
    }

    /// Shows what this process holds, by its own reports, whenever that has changed: at once, at every interval, and at the end. A thread
    /// of its own does it, until the [`Watch`] is dropped. It fails if there is no such thread to be had.
    pub fn watch(&self, interval: Duration, output: impl Write + Send + 'static) -> io::Result<Watch> {
        Watch::start(self.clone(), interval, output)
    }

    /// Waits until the server has taken all that was reported before, and says whether it has in time.
    pub fn flush(&self, timeout: Duration) -> bool {
        let Some(shared) = self.root.known() else { return true };
        let begin = Instant::now();
        let wanted = shared.flush_wanted.fetch_add(1, AcqRel) + 1;
        while shared.flush_done.load(Acquire) < wanted {
            if begin.elapsed() >= timeout || !shared.is_running() {
                return false;
            }
            shared.wake();
            std::thread::sleep(FLUSH_INTERVAL);
        }
        true
    }

    #[inline]
    fn report(&self, header: &Header) {
        match self.root.shared() {
            Some(shared) => thread_lane::report(shared, header),
            None => self.root.lose(),
        }
    }
}

fn by_size(kind: Kind, device: u16, buffer_type: u8, size_bytes: u64) -> Header {
    Header { device_id: i32::from(device), size_bytes, buffer_type, ..Header::request(kind) }
}

/// What the clones of a client share; in a fork it points to something new.
struct Root {
    options: Options,
    /// A leaked `Box<Arc<Shared>>`, or null before the first report. A fork leaks its parent's: nobody can tell what state its locks are in.
    current: AtomicPtr<Arc<Shared>>,
    /// Reports from before the system had what the first one needs.
    lost: AtomicU64,
}

impl Root {
    /// What reports go through.
    #[inline]
    fn shared(&self) -> Option<&Arc<Shared>> {
        match self.known() {
            Some(shared) => Some(shared),
            None => self.start(),
        }
    }

    /// The same, if there has been a report in this process.
    #[inline]
    fn known(&self) -> Option<&Arc<Shared>> {
        let current = self.current.load(Acquire);
        // SAFETY: it is null or came from `Box::into_raw`, and is freed by nobody but our own drop.
        let shared = unsafe { current.as_ref() }?;
        (shared.generation == fork::generation()).then_some(shared)
    }

    #[cold]
    fn lose(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    #[cold]
    fn start(&self) -> Option<&Arc<Shared>> {
        let parents = self.current.load(Acquire);
        let new = Box::into_raw(Box::new(Shared::new(self.options.clone())?));
        match self.current.compare_exchange(parents, new, AcqRel, Acquire) {
            Ok(_) => {
                // SAFETY: a parent's is never freed.
                if let Some(parents) = unsafe { parents.as_ref() } {
                    parents.close_in_fork();
                }
                // SAFETY: we have just made it, and it is freed by nobody but our own drop.
                let shared = unsafe { &*new };
                if parents.is_null() {
                    shared.lose(self.lost.swap(0, Relaxed));
                }
                pump::start(shared);
                Some(shared)
            }
            Err(_) => {
                // SAFETY: another thread was faster, so nobody has seen this one.
                drop(unsafe { Box::from_raw(new) });
                self.known()
            }
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let current = self.current.load(Acquire);
        if self.known().is_some() {
            // SAFETY: it is this process's own, came from `Box::into_raw`, and nobody can reach it through us any more.
            let shared = unsafe { Box::from_raw(current) };
            shared.close();
        }
    }
}

/// Everything that the threads, the background thread and the clients of this process share.
pub(crate) struct Shared {
    id: u64,
    /// What the server tells this client from others of the process by.
    identity: u64,
    generation: u64,
    options: Options,
    board: Board,
    books: Mutex<Books>,
    /// Wakes the background thread.
    wake: Arc<Wake>,
    /// The connection's descriptor, for a fork to close; -1 if there is none.
    pub(crate) socket: AtomicI32,
    is_running: AtomicBool,
    /// Whether a report has waited for the background thread in vain.
    is_stuck: AtomicBool,
    is_closed: AtomicBool,
    lost: AtomicU64,
    pub(crate) flush_wanted: AtomicU64,
    pub(crate) flush_done: AtomicU64,
}

impl Shared {
    /// `None` if the system has no descriptor left: then nothing is reported, and the next report tries again.
    pub(crate) fn new(options: Options) -> Option<Arc<Shared>> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let wake = Arc::new(Wake::new().ok()?);
        let board = Board::new(Lanes::own(geometry(&options), Arc::clone(&wake)));
        let (lanes, _) = board.current();
        let mut books = Books::new(lanes);
        if let Some(trace) = &options.trace {
            books.holdings.apply(&trace.encode());
        }
        Some(Arc::new(Shared {
            id: IDS.fetch_add(1, Relaxed),
            identity: new_identity(),
            generation: fork::generation(),
            options,
            board,
            books: Mutex::new(books),
            wake,
            socket: AtomicI32::new(-1),
            is_running: AtomicBool::new(true),
            is_stuck: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            flush_wanted: AtomicU64::new(0),
            flush_done: AtomicU64::new(0),
        }))
    }

    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn geometry(&self) -> Geometry {
        geometry(&self.options)
    }

    #[inline]
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn overrun(&self) -> Overrun {
        self.options.overrun
    }

    pub(crate) fn waker(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Wakes the background thread.
    pub(crate) fn wake(&self) {
        self.wake.ring();
    }

    /// A thread has waited too long: the server is to be given up.
    pub(crate) fn stall(&self) {
        if !self.board.is_stalled.swap(true, AcqRel) {
            self.wake();
        }
    }

    /// Counts reports that found no ring.
    pub(crate) fn lose(&self, reports: u64) {
        self.lost.fetch_add(reports, Relaxed);
    }

    pub(crate) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Relaxed)
    }

    /// Whether nobody is to wait for the background thread any more.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Relaxed)
    }

    pub(crate) fn set_stuck(&self, is_stuck: bool) {
        self.is_stuck.store(is_stuck, Relaxed);
    }

    /// Whether the background thread runs.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Acquire)
    }

    pub(crate) fn stopped(&self) {
        self.is_running.store(false, Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    fn close(&self) {
        self.flush_wanted.fetch_add(1, AcqRel);
        self.is_closed.store(true, Release);
        self.wake();
    }

    /// In a fork: its copy of the parent's connection would keep that open when the parent has gone.
    fn close_in_fork(&self) {
        let socket = self.socket.swap(-1, AcqRel);
        if socket >= 0 {
            // SAFETY: the descriptor was the parent's connection when this process was forked off; the parent's thread, which owns it,
            // does not exist here.
            let _ = unsafe { libc::close(socket) };
        }
    }
}

/// A number that no other client of this process has, be it of another copy of this library: random, and never 0.
fn new_identity() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}

fn geometry(options: &Options) -> Geometry {
    Geometry::nearest(options.rings, options.ring_records)
}
