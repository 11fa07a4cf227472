//! Segments of the store, and the results in them: read from a disk that anything may have happened to.
#![no_main]

use castwork_scheduler::doors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| doors::segment(data));
