//! How much memory all processes of an action use, for where no control group bounds it.

use std::collections::HashMap;

/// Size of a page on every processor that this runs on by default; a larger one is noticed later.
const PAGE_BYTES: u64 = 4096;

/// The sum, over all that a process has started and what those have, of what is each one's own, in bytes.
pub(super) fn in_use_below(top: u32) -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parents: HashMap<u32, u32> = numbers.filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let is_below = |pid: &&u32| {
        let above = std::iter::successors(parents.get(*pid), |parent| parents.get(*parent));
        above.take(parents.len()).any(|above| *above == top)
    };
    let below = parents.keys().filter(is_below);
    below.filter_map(|pid| own_pages(format!("/proc/{pid}/statm").as_ref())).sum::<u64>() * PAGE_BYTES
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, a bracket too.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
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
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        // It may not have taken any yet.
        while in_use_below(std::process::id()) == 0 {}
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
