//! Names of the input root in a worker's object: paths that the compiler's prefix maps don't reach.
//!
//! clang doesn't map the names of lambdas and unnamed types in `__PRETTY_FUNCTION__`, nor the locations that
//! `-g -fopenmp` hands to the runtime. The bare compiler would have written the real path there.

use crate::paths::{ABSOLUTE, INPUT_ROOT, MOUNTS, Place};

/// Whether an object made by a worker holds a path of the input root that means nothing here.
///
/// Text of the user's own that happens to read so counts as well: it costs a compile here. A number that is made of such
/// a path while compiling, and nothing of its letters, is not seen.
pub fn shows(object: &[u8], place: &Place) -> bool {
    // What really lies there is called by its own name.
    let is_own = |name: &str| {
        let real = format!("{INPUT_ROOT}/{name}");
        place.mounts().iter().any(|mount| mount.name == name && mount.real == real)
    };
    let foreign: Vec<&str> = MOUNTS.into_iter().chain([ABSOLUTE]).filter(|name| !is_own(name)).collect();
    let first = INPUT_ROOT.as_bytes()[0];
    let mut from = 0;
    while let Some(at) = object[from..].iter().position(|byte| *byte == first).map(|at| from + at) {
        from = at + 1;
        // Behind another name it is a folder within that one.
        let is_begin = at == 0 || !is_of_name(object[at - 1]);
        if is_begin && foreign.iter().any(|name| starts_path(&object[at..], name)) {
            return true;
        }
    }
    false
}

/// Whether a text starts with the folder that is called `name` in the input root.
fn starts_path(text: &[u8], name: &str) -> bool {
    let rest = text
        .strip_prefix(INPUT_ROOT.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"/"))
        .and_then(|rest| rest.strip_prefix(name.as_bytes()));
    rest.is_some_and(|rest| rest.first().is_none_or(|next| !is_of_name(*next)))
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &str) -> Place {
        Place::new(folder.to_owned(), Some(folder.to_owned())).unwrap()
    }

    #[test]
    fn a_path_of_the_input_root_is_seen_wherever_it_begins() {
        let here = place("/home/me/project");
        for object in
            ["\0/build/p/a.cc\0", "(lambda at /build/p/a.cc:2:1)", ";/build/abs/opt/x.c;f;2;1;;", "/build/s"]
        {
            assert!(shows(object.as_bytes(), &here), "{object:?}");
        }
    }

    #[test]
    fn folders_that_are_called_alike_are_none_of_it() {
        let here = place("/home/me/project");
        for object in
            ["", "/", "/build", "/build/", "/build/project/a.cc", "src/build/p/a.cc", "/x/build/p/a.cc"]
        {
            assert!(!shows(object.as_bytes(), &here), "{object:?}");
        }
    }

    #[test]
    fn what_really_lies_there_is_called_so() {
        assert!(!shows(b"\0/build/p/a.cc", &place("/build/p")));
        // What is below it is called otherwise, and both names may begin alike.
        assert!(shows(b"\0/build/p/a.cc", &place("/build/p/sub")));
        assert!(shows(b"\0/build/b/a.cc", &place("/build/p")));
        assert!(shows(b"\0/build/p/a.cc", &place("/build/project")));
    }
}
