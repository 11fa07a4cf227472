//! Becoming the command: `execve` with exactly its arguments and environment.

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::unistd::{execve, write};

use super::keeper::exit_now;
use super::wire::Order;
use crate::sandbox::PATH_DEFAULT;

/// A shell's exit code for a program that is not there.
const NOT_FOUND: i32 = 127;

/// A shell's exit code for a program that can't be started.
const NOT_STARTED: i32 = 126;

/// The command in the form that the kernel wants.
pub(super) struct Program {
    /// As it was asked for.
    name: String,
    /// Where it may be, in order.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// Looks up nothing yet: the candidates are tried when it starts. `more` is a variable for an
    /// environment that doesn't have it.
    pub(super) fn of(order: &Order, more: Option<&(String, String)>) -> Self {
        let name = order.arguments[0].clone();
        let path = order.environment.iter().find(|(key, _)| key == "PATH");
        let path = path.map_or(PATH_DEFAULT, |(_, value)| value.as_str());
        Self {
            candidates: candidates(&name, path),
            name,
            arguments: order.arguments.iter().map(|argument| c_string(argument)).collect(),
            environment: order
                .environment
                .iter()
                .chain(more.filter(|(name, _)| order.environment.iter().all(|(own, _)| own != name)))
                .map(|(key, value)| c_string(&format!("{key}={value}")))
                .collect(),
        }
    }

    /// Replaces this process; if that fails, ends it as a shell would.
    pub(super) fn become_it(&self) -> ! {
        let errno = match self.exec_any() {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        let (code, reason) = match errno {
            Errno::ENOENT => (NOT_FOUND, "command not found"),
            errno => (NOT_STARTED, errno.desc()),
        };
        let line = format!("castwork: {}: {reason}\n", self.name);
        let _ = write(std::io::stderr(), line.as_bytes());
        exit_now(code)
    }

    fn exec_any(&self) -> Result<std::convert::Infallible, Errno> {
        let mut found: Option<Errno> = None;
        for candidate in &self.candidates {
            match self.exec(candidate) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => found = Some(Errno::EACCES),
                errno => return Err(errno),
            }
        }
        Err(found.unwrap_or(Errno::ENOENT))
    }

    fn exec(&self, path: &CStr) -> Errno {
        match execve(path, &self.arguments, &self.environment) {
            Ok(never) => match never {},
            Err(errno) => errno,
        }
    }
}

/// Where a program of that name may be. A name with a slash is a path, relative to where one is.
fn candidates(name: &str, path: &str) -> Vec<CString> {
    if name.contains('/') {
        return vec![c_string(name)];
    }
    path.split(':')
        .map(|folder| if folder.is_empty() { c_string(name) } else { c_string(&format!("{folder}/{name}")) })
        .collect()
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("a command's text was checked to have no NUL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_for_along_the_path_and_any_other_is_not() {
        assert_eq!(candidates("cc", "/a::/b"), [c"/a/cc", c"cc", c"/b/cc"].map(CStr::to_owned));
        assert_eq!(candidates("./cc", "/a"), [c"./cc".to_owned()]);
        assert_eq!(candidates("/x/cc", "/a"), [c"/x/cc".to_owned()]);
    }
}
