//! A worker whose machine holds nothing but what it is made of: no compiler, and not even a shell.

use std::fs;
use std::process::Command;

use crate::farm::Farm;
use crate::program::{Program, binary};
use crate::skip::skip;

/// Makes `$1` a root with the files in list `$2` and the folder `$3`, and runs the rest of the words in it.
///
/// Not by `chroot`: in such a one there are no user namespaces.
const ROOT: &str = r#"
set -e
root=$1 list=$2 work=$3
shift 3
mount --make-rprivate /
mount -t tmpfs none "$root"
mkdir -p "$root/dev" "$root/proc" "$root/old" "$root$work"
mount --rbind /proc "$root/proc"
for name in null zero full random urandom; do : >"$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mount --bind "$work" "$root$work"
while read -r file place; do mkdir -p "$root$(dirname "$place")"; cp -L "$file" "$root$place"; done <"$list"
cd "$root"
pivot_root . old
exec /busybox sh -c '/busybox umount -l /old && /busybox rmdir /old && exec "$@"' sh "$@"
"#;

impl Farm {
    /// Starts a worker in a root of its own that holds its program, the libraries of that, and nothing else. `None` if
    /// there are no mount namespaces here, or no `busybox`: the test is skipped then.
    ///
    /// # Panics
    /// As [`Farm::start`].
    pub fn bare_worker(&self, test: &str) -> Option<Program> {
        let folder = self.folder();
        let (root, data, list) = (folder.join("root"), folder.join("bare"), folder.join("files"));
        for folder in [&root, &data] {
            fs::create_dir_all(folder).expect("create a folder");
        }
        let worker = binary("castwork-worker");
        let listed = said(Command::new("ldd").arg(&worker));
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        let mut files: Vec<String> = libraries.map(|path| format!("{path} {path}\n")).collect();
        files.push(format!("{} /castwork-worker\n", worker.display()));
        let busybox = said(Command::new("sh").args(["-c", "command -v busybox"]));
        files.push(format!("{} /busybox\n", busybox.trim()));
        fs::write(&list, files.concat()).expect("write a list");
        let is_root = said(Command::new("id").arg("-u")).trim() == "0";
        let unshared = if is_root { "-m" } else { "-Urm" };
        let tried = Command::new("unshare").args([unshared, "mount", "-t", "tmpfs", "none", "/mnt"]).status();
        if busybox.is_empty() || !tried.is_ok_and(|status| status.success()) {
            skip(test, "there are no mount namespaces, or there is no `busybox`");
            return None;
        }
        let mut command = Command::new("unshare");
        command.args([unshared, "sh", "-c", ROOT, "sh"]).arg(&root).arg(&list).arg(folder);
        command.args(["/castwork-worker", "--slots", "2", "--scheduler"]).arg(self.address());
        command.arg("--data-dir").arg(&data);
        let mut worker = Program::start(command, folder, "bare-worker");
        worker.ready();
        Some(worker)
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
