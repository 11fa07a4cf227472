//! Directories and trees: whatever passes the check has legal names, and any walk of it ends.
#![no_main]

use bytes::Bytes;
use castwork_cas::DigestFunction;
use castwork_cas::merkle::{CheckedDirectory, Limits, TreeReader, check_name};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    depth_max: 64,
    directories_max: 1000,
    paths_max: 10_000,
    directory_bytes_max: 1 << 20,
    bytes_max: 4 << 20,
};

fuzz_target!(|data: &[u8]| {
    let function = DigestFunction::Sha256;
    if let Ok(directory) = CheckedDirectory::from_bytes(data, function, &LIMITS) {
        let files = directory.files.iter().map(|entry| &entry.name);
        let folders = directory.directories.iter().map(|entry| &entry.name);
        let links = directory.symlinks.iter().map(|entry| &entry.name);
        for name in files.chain(folders).chain(links) {
            assert!(check_name(name).is_ok() && !name.contains('/') && name != "..");
        }
    }
    if let Ok(reader) = TreeReader::from_bytes(&Bytes::copy_from_slice(data), function, &LIMITS)
        && let Ok(flat) = reader.to_flat(&LIMITS)
    {
        assert!(flat.entries().take(20_000).count() < 20_000);
    }
});
