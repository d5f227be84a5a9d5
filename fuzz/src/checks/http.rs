//! What an HTTP client sends: the real server answers it over a stream in memory.

use std::cell::RefCell;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use ttmem::registry::{Identity, MemoryType, ProcessInfo, Registry, Source};
use ttmem::sinks::http::{DaemonMetrics, Live, Sources, Web, converse};
use ttmem::sinks::traces;

/// More than a whole answer has.
const STREAM_BYTES: usize = 1 << 20;
/// Turns without a byte after which the server has said all that it will.
const SILENT_TURNS_MAX: u32 = 20;

/// A request whose answer is known.
const PROBE: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n";

thread_local! {
    static SERVER: RefCell<Server> = RefCell::new(Server::new());
}

/// Whatever a client sends, it gets whole answers of HTTP/1, none of which says that the server failed.
pub fn http(data: &[u8]) {
    SERVER.with_borrow(|server| {
        let answered = server.runtime.block_on(answer(&server.sources, data));
        check_answers(&answered);
        if data.starts_with(PROBE) {
            let text = String::from_utf8_lossy(&answered);
            assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("ttmem is healthy."), "{text}");
        }
    });
}

struct Server {
    runtime: Runtime,
    sources: Arc<Sources>,
}

impl Server {
    fn new() -> Server {
        let registry = Arc::new(Registry::new(0));
        let info = ProcessInfo::new("model \"quoted\"", 1000, "ml", Source::Socket);
        let process = registry.process(Identity { pid: 77, start_ticks: 1 }, 1, info);
        for id in 0..300 {
            // Whether one of them finds room says nothing about HTTP.
            let _ =
                registry.batch(&process, 1).allocate((id % 3) as u16, MemoryType::Dram, id, 1 << (id % 30));
        }
        let metrics = DaemonMetrics::new("0.0.0", "none", 0.0).expect("new names");
        let web = Web::load(None).expect("nothing to read");
        let host = Arc::new(traces::host());
        // Without a sampler a stream ends after its first event.
        let (live, _) = Live::new(Arc::clone(&host), false);
        let sources = Sources::new(registry, metrics, 100, web, host, None, live);
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        Server { runtime, sources: Arc::new(sources) }
    }
}

/// All that the server says before it has nothing more to say.
async fn answer(sources: &Arc<Sources>, data: &[u8]) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(STREAM_BYTES);
    let (_stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(converse(Arc::clone(sources), server, stopping));
    let mut answered = Vec::new();
    // The server may have closed it before the end.
    let _ = client.write_all(&data[..data.len().min(STREAM_BYTES)]).await;
    let mut silent_turns = 0;
    while silent_turns < SILENT_TURNS_MAX && !serving.is_finished() {
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            read = client.read_buf(&mut answered) => match read {
                Ok(bytes) if bytes > 0 => silent_turns = 0,
                _ => break,
            },
            () = std::future::ready(()) => silent_turns += 1,
        }
    }
    let _ = client.shutdown().await;
    let _ = client.read_to_end(&mut answered).await;
    serving.await.expect("the server goes on whatever a client sends");
    answered
}

fn check_answers(answered: &[u8]) {
    if answered.is_empty() {
        return;
    }
    let head: Vec<u8> = answered.iter().copied().take(12).collect();
    assert!(head.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&head));
    assert!(
        head.get(9).is_some_and(|digit| (b'2'..=b'4').contains(digit)) || head.ends_with(b"503"),
        "{head:?}"
    );
}
