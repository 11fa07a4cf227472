//! An action, run where only its inputs are, gives the object of the plain compile, byte for byte.
//!
//! The action is run as a worker would: its input root is `/`, and nothing of the host is there, no compiler either.
//! That takes namespaces; where there are none, these tests say so and do nothing.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use bytes::Bytes;
use castwork::config::Config;
use castwork::prepare::Prepared;
use castwork_proto::reapi;
use prost::Message;
use support::{Project, c_compilers, cross_compilers, cxx_compilers, program, text};

/// The working folder belongs to the whole process.
static FOLDER: Mutex<()> = Mutex::new(());

/// Gives the input root at `$1` what every action has of its own, and runs the rest of the words in it, in folder `$2`.
const ROOT: &str = r#"
set -e
mkdir -p "$1/tmp" "$1/proc" "$1/dev"
mount -t tmpfs none "$1/dev"
touch "$1/dev/null"; mount --bind /dev/null "$1/dev/null"
mount --rbind /proc "$1/proc"
shift 2
exec env -i "$@"
"#;

fn prepared(project: &Project, line: &str) -> Result<Prepared, String> {
    let _alone = FOLDER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::env::set_current_dir(&project.root).unwrap();
    let variables = BTreeMap::from([
        ("CASTWORK_DIR", project.cache.to_str().unwrap().to_owned()),
        ("CASTWORK_PROJECT_ROOT", project.root.to_str().unwrap().to_owned()),
    ]);
    let config = Config::load(&BTreeMap::new(), |name| variables.get(name).cloned()).unwrap();
    let mut words = line.split_whitespace();
    let compiler = program(words.next().unwrap()).unwrap();
    let words: Vec<_> = words.map(Into::into).collect();
    Prepared::new(&config, &compiler, &words).map_err(|reason| reason.to_string())
}

/// Runs an action and returns the object; `None` if there are no namespaces here.
fn run(project: &Project, prepared: &Prepared) -> Option<Vec<u8>> {
    let blobs: HashMap<String, Bytes> = prepared
        .inputs()
        .messages
        .into_iter()
        .chain(prepared.inputs().files)
        .map(|(d, data)| (d.hash_hex(), data))
        .collect();
    let blob = |digest: &Option<reapi::Digest>| {
        let hash = &digest.as_ref().unwrap().hash;
        blobs.get(hash).cloned().unwrap_or_default()
    };
    let action = reapi::Action::decode(blobs[&prepared.action.digest.hash_hex()].clone()).unwrap();
    let command = reapi::Command::decode(blob(&action.command_digest)).unwrap();
    let inputs = tempfile::tempdir_in(project.root.parent().unwrap()).unwrap();
    let toolchain = prepared.inputs().toolchain.into_iter();
    let toolchain: HashMap<String, PathBuf> = toolchain.map(|(d, path)| (d.hash_hex(), path)).collect();
    assert!(!toolchain.is_empty(), "{:?} doesn't travel", prepared.call.toolchain().travel);
    lay_out(inputs.path(), &blob(&action.input_root_digest), &blob, &toolchain);
    let folder = inputs.path().join(&command.working_directory);
    for output in &command.output_paths {
        std::fs::create_dir_all(folder.join(output).parent().unwrap()).unwrap();
    }
    let variables = command.environment_variables.iter().map(|v| format!("{}={}", v.name, v.value));
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", ROOT, "sh"])
        .args([inputs.path(), Path::new(&command.working_directory)])
        .args(variables)
        .arg(program("unshare").unwrap())
        .arg(format!("--root={}", inputs.path().display()))
        .arg(format!("--wd=/{}", command.working_directory))
        .args(&command.arguments)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    if said.contains("unshare: ") || said.contains("mount: ") {
        support::skip("identity", &format!("there are no namespaces: {}", said.trim_end()));
        return None;
    }
    assert!(output.status.success(), "{:?}: {said}", command.arguments);
    let object = std::fs::read(folder.join(&command.output_paths[0])).unwrap();
    if prepared.action.moves_debug {
        return Some(castwork::debug_names::to_real(&object, &prepared.call.place).unwrap());
    }
    Some(object)
}

fn lay_out(
    folder: &Path,
    directory: &Bytes,
    blob: &impl Fn(&Option<reapi::Digest>) -> Bytes,
    toolchain: &HashMap<String, PathBuf>,
) {
    std::fs::create_dir_all(folder).unwrap();
    let directory = reapi::Directory::decode(directory.clone()).unwrap();
    for file in directory.files {
        let place = folder.join(&file.name);
        match toolchain.get(&file.digest.as_ref().unwrap().hash) {
            Some(own) => std::fs::hard_link(kept(own, &file.digest.as_ref().unwrap().hash), &place).unwrap(),
            None => std::fs::write(place, blob(&file.digest)).unwrap(),
        }
    }
    for link in directory.symlinks {
        std::os::unix::fs::symlink(link.target, folder.join(link.name)).unwrap();
    }
    for child in directory.directories {
        lay_out(&folder.join(&child.name), &blob(&child.digest), blob, toolchain);
    }
}

/// A copy of a compiler's file that can be linked to: a link to the file itself would look like a change of it.
fn kept(own: &Path, hash: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("toolchain");
    std::fs::create_dir_all(&folder).unwrap();
    let place = folder.join(hash);
    if !place.exists() {
        let copy = tempfile::NamedTempFile::new_in(&folder).unwrap();
        std::fs::copy(own, copy.path()).unwrap();
        copy.persist(&place).unwrap();
    }
    place
}

/// Checks a line of `{compiler} … {source}`, with the object left out.
fn check(project: &Project, line: &str) {
    let plain = project.plain(&format!("{line} -o plain.o"));
    assert!(plain.status.success(), "{line}: {}", text(&plain.stderr));
    let prepared =
        prepared(project, line).unwrap_or_else(|reason| panic!("{line}: passed through: {reason}"));
    assert!(prepared.action.is_bound_here.is_none(), "{line}: {:?}", prepared.action.is_bound_here);
    let Some(object) = run(project, &prepared) else { return };
    let here = std::fs::read(project.root.join("plain.o")).unwrap();
    assert!(object == here, "{line}: another object than the plain compile's");
}

fn project() -> Project {
    Project::with(&[
        (
            "src/a.cc",
            "#include <map>\n#include <cassert>\n#include \"x.h\"\n#include \"../inc/y.h\"\n\
             int f(int x) { assert(x); std::map<int, int> m; m[x] = value() + Y; return (int)m.size(); }\n",
        ),
        (
            "src/b.c",
            "#include <stdio.h>\n#include <math.h>\n#include <assert.h>\n#include <x.h>\n#include \"../inc/y.h\"\n\
             static inline int unused(void) { return 1; }\n\
             int f(int x) { assert(x); printf(\"%s %d\\n\", __func__, value()); return Y; }\n\
             #ifdef __STDC_IEC_559__\nint ieee = 1;\n#endif\n",
        ),
        (
            "inc/x.h",
            "#ifndef X\n#define X\n#ifdef __cplusplus\n#include <vector>\n#endif\nstatic inline int value(void) { return 3; }\n#endif\n",
        ),
        ("inc/y.h", "#pragma once\n#define Y 4\n"),
        ("sys/z.h", "#define Z 1\n"),
    ])
}

const FLAGS: [&str; 12] = [
    "-O2",
    "-O0 -g",
    "-O2 -g1",
    "-O2 -g3",
    "-O1 -ggdb -gz",
    "-O2 -g -fPIC -fno-omit-frame-pointer -fstack-protector-strong -pthread",
    "-Os -ffunction-sections -fdata-sections -fvisibility=hidden",
    "-O3 -march=x86-64-v2 -mtune=generic -funroll-loops -ffast-math",
    "-O2 -m64 -isystem sys -idirafter inc -iquote inc -include sys/z.h",
    "-O2 -Wall -Wextra -Wl,-z,now -D_FORTIFY_SOURCE=2 -DNDEBUG -U_FOO",
    "-g -O2 -Wa,--noexecstack -fcommon",
    "-O2 -pipe -w -nostdlib -fno-builtin",
];

#[test]
fn flags_that_are_let_through_give_the_same_object_in_cxx() {
    let project = project();
    for compiler in cxx_compilers() {
        for flags in FLAGS {
            check(&project, &format!("{compiler} {flags} -Iinc -c src/a.cc"));
        }
        for standard in ["c++11", "c++17", "gnu++20"] {
            check(&project, &format!("{compiler} -std={standard} -g -Iinc -c src/a.cc"));
        }
        check(&project, &format!("{compiler} -fno-exceptions -fno-rtti -x c++ -Iinc -c src/b.c"));
    }
}

#[test]
fn large_headers_give_the_same_object() {
    let project = project();
    project.write(
        "src/r.cc",
        "#include <regex>\n#include <iostream>\n#include <algorithm>\n\
         bool g(const char *s) { return std::regex_match(s, std::regex(\"a+\")); }\n",
    );
    for compiler in cxx_compilers() {
        check(&project, &format!("{compiler} -g -O1 -c src/r.cc"));
    }
}

#[test]
fn flags_that_are_let_through_give_the_same_object_in_c() {
    let project = project();
    for compiler in c_compilers() {
        for flags in FLAGS {
            check(&project, &format!("{compiler} {flags} -Iinc -c src/b.c"));
        }
        for standard in ["c99", "gnu11", "c11"] {
            check(&project, &format!("{compiler} -std={standard} -g -Iinc -c src/b.c"));
        }
    }
}

#[test]
fn compilers_for_other_systems_give_the_same_object() {
    let project = project();
    for compiler in cross_compilers() {
        for flags in ["-O2 -Wall", "-g -O1", "-g3 -std=c++17 -ffunction-sections"] {
            check(&project, &format!("{compiler} {flags} -Iinc -c src/a.cc"));
        }
        let of_c = compiler.replace("g++", "gcc");
        check(&project, &format!("{of_c} -g -O2 -Iinc -c src/b.c"));
    }
}

#[test]
fn absolute_paths_come_out_as_they_are() {
    let project = project();
    let root = project.root.to_str().unwrap().to_owned();
    for compiler in cxx_compilers() {
        for flags in ["-O2", "-g", "-g -O2", "-g3", "-g1 -DNDEBUG"] {
            check(&project, &format!("{compiler} {flags} -I{root}/inc -c {root}/src/a.cc"));
        }
        check(&project, &format!("{compiler} -gdwarf-4 -O2 -I{root}/inc -c src/a.cc"));
    }
}

#[test]
fn headers_of_elsewhere_come_out_as_they_are() {
    let project = project();
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().to_str().unwrap();
    std::fs::write(elsewhere.path().join("far.h"), "inline const char *far_away() { return __FILE__; }\n")
        .unwrap();
    project.write("src/c.cc", "#include <far.h>\nconst char *f() { return far_away(); }\n");
    for compiler in cxx_compilers() {
        for flags in ["-O2", "-g"] {
            check(&project, &format!("{compiler} {flags} -I{folder} -c src/c.cc"));
            check(&project, &format!("{compiler} {flags} -isystem {folder} -c src/c.cc"));
        }
    }
}

#[test]
fn names_of_files_that_the_source_asks_for_come_out_as_they_are() {
    let project = project();
    let root = project.root.to_str().unwrap().to_owned();
    project.write(
        "src/d.cc",
        "const char *a = __FILE__, *b = __BASE_FILE__;\nconst char *c(const char *x = __builtin_FILE()) { return x; }\n\
         const char *d = c();\nauto lambda = [](auto) { return __PRETTY_FUNCTION__; };\nconst char *e = lambda(1);\n\
         template <class T> const char *name() { return __PRETTY_FUNCTION__; }\nconst char *f = name<decltype(lambda)>();\n",
    );
    for compiler in cxx_compilers() {
        check(&project, &format!("{compiler} -O2 -std=c++17 -c src/d.cc"));
        if compiler == "g++" {
            check(&project, &format!("{compiler} -O2 -std=c++17 -c {root}/src/d.cc"));
            check(&project, &format!("{compiler} -O2 -g -std=c++17 -c {root}/src/d.cc"));
        }
    }
}

#[test]
fn prefix_maps_of_the_users_own_keep_their_meaning() {
    let project = project();
    let root = project.root.to_str().unwrap().to_owned();
    let parent = project.root.parent().unwrap().to_str().unwrap().to_owned();
    project.write("src/e.cc", "#include \"../inc/y.h\"\nconst char *a = __FILE__;\nint f() { return Y; }\n");
    for maps in [
        format!("-ffile-prefix-map={root}=."),
        format!("-fdebug-prefix-map={root}/src=/source -fmacro-prefix-map={root}=top"),
        format!("-ffile-prefix-map={parent}=/home -ffile-prefix-map={root}/inc=/inc"),
        format!("-ffile-prefix-map={root}/=/slash/"),
        format!("-fdebug-prefix-map={}=/usr", "/usr/include"),
        "-ffile-prefix-map=src=other".to_owned(),
    ] {
        check(&project, &format!("g++ -g -O2 {maps} -c {root}/src/e.cc"));
        check(&project, &format!("g++ -g -O2 {maps} -c src/e.cc"));
    }
}
