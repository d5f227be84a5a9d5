//! Files that other programs write, or that show what other programs call themselves.

use ttmem::ingest;

/// As many as a region has slots for.
const SLOTS_MAX: usize = 64;
const DEVICES_MAX: u32 = 1024;
/// The characters that a label keeps of a process's name.
const NAME_CHARS_MAX: usize = 64;
const CONTAINER_ID_CHARS: usize = 64;

/// A region is understood as one of the known devices with processes that can be, or it is said why not.
pub fn region(data: &[u8]) {
    match ingest::region(data) {
        Ok(Some(region)) => {
            assert!(region.device < DEVICES_MAX);
            assert!(region.pids.len() <= SLOTS_MAX && region.pids.iter().all(|pid| *pid > 0));
        }
        Ok(None) => {}
        Err(reason) => assert!(!reason.is_empty()),
    }
    // A file that is cut short between two readings says nothing that it did not say before.
    if let (Ok(Some(whole)), Ok(Some(cut))) = (ingest::region(data), ingest::region(&data[..data.len() / 2]))
    {
        assert_eq!(whole.device, cut.device);
    }
}

/// Names are short, ids of containers are ids, and a process belongs to the pod that its group names.
///
/// The files stand one behind the other, each ended by a byte of 0xff, which no text has.
pub fn process_files(data: &[u8]) {
    let mut texts = data.split(|byte| *byte == 0xff).map(String::from_utf8_lossy);
    let files: [_; 5] = std::array::from_fn(|_| texts.next().unwrap_or_default());
    let process = ingest::process(std::array::from_fn(|index| files[index].as_ref()));
    if let Some(name) = &process.name {
        assert!(!name.is_empty() && name.chars().count() <= NAME_CHARS_MAX, "{name:?}");
    }
    if let Some(id) = &process.container_id {
        assert_eq!(id.len(), CONTAINER_ID_CHARS);
        assert!(is_hexadecimal(id), "{id:?}");
    }
    if let Some(uid) = &process.pod_uid {
        assert!(process.container_id.is_some(), "a pod without a container");
        assert!(is_hexadecimal(&uid.replace('-', "")), "{uid:?}");
        assert!(!files[4].is_empty());
    }
    let holders = ingest::holders(&files[0]);
    assert!(holders.windows(2).all(|pair| pair[0] < pair[1]) && !holders.contains(&0), "{holders:?}");
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
