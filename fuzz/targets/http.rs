//! Paths and ranges of the HTTP cache.
#![no_main]

use castwork_scheduler::doors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (path, range) = data.split_at(data.len() / 2);
    if let (Ok(path), Ok(range)) = (std::str::from_utf8(path), std::str::from_utf8(range)) {
        doors::http(path, range);
    }
});
