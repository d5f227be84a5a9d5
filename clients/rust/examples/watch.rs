//! A program that shows what it holds while it runs, without any server: `cargo run -p ttmem-client --example watch`.

use std::time::Duration;

use ttmem_client::{BufferType, Client};

/// The time that the program takes for a layer.
const LAYER_TIME: Duration = Duration::from_millis(400);

fn main() -> std::io::Result<()> {
    let client = Client::new();
    let watch = client.watch(Duration::from_secs(1), std::io::stderr())?;
    for layer in 0..8 {
        client.allocated(0, BufferType::Dram, layer << 32, 48 << 20);
        client.allocated(0, BufferType::L1, layer, 1 << 20);
        std::thread::sleep(LAYER_TIME);
        client.freed(0, layer);
    }
    drop(watch);
    Ok(())
}
