//! How much memory all processes of an action use, for where no control group bounds it.

/// Size of a page on every processor that this runs on by default; a larger one is noticed later.
const PAGE_BYTES: u64 = 4096;

/// The sum over all processes that process 1 sees, of what is each one's own, in bytes.
pub(super) fn in_use() -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = entries.filter_map(Result::ok).filter(|entry| is_process(&entry.file_name()));
    processes.filter_map(|entry| own_pages(&entry.path().join("statm"))).sum::<u64>() * PAGE_BYTES
}

/// Resident pages without those that are a file's or shared.
fn own_pages(statm: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(statm).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (_, resident, shared) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_some() {
        assert!(own_pages("/proc/self/statm".as_ref()).unwrap() > 0);
        assert!(in_use() > 0);
    }
}
