//! What a compile depends on that rustc doesn't say: a hit is still what plain rustc would give.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::rust::{Crate, LIB, OUT};
use support::{program, shown};

/// The head of a crate of macros.
const MACROS: &str = "extern crate proc_macro;\nuse proc_macro::TokenStream;\n";

/// A line for another crate of the same project.
fn named(name: &str) -> String {
    LIB.replace("--crate-name a", &format!("--crate-name {name}"))
        .replace("src/lib.rs", &format!("src/{name}.rs"))
}

fn bin(name: &str) -> String {
    named(name).replace("--crate-type lib", "--crate-type bin").replace("metadata,", "")
}

fn macros(name: &str) -> String {
    named(name)
        .replace("--crate-type lib", "--crate-type proc-macro -C prefer-dynamic --extern proc_macro")
        .replace("metadata,", "")
}

/// Runs a script in the project.
fn sh(project: &Crate, script: &str) {
    assert!(project.project.command("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}

/// Whether there is what libraries of C are made with.
fn has_tools() -> bool {
    let has = program("ar").is_some() && program("gcc").is_some();
    if !has {
        support::skip("libraries of C", "there is no ar or gcc");
    }
    has
}

/// Makes `c1.o` with a function that returns a number.
fn object(project: &Crate, value: &str) {
    project.write("c1.c", &format!("int c1(void) {{ return {value}; }}\n"));
    sh(project, "gcc -c c1.c -o c1.o");
}

const MAIN: &str = "extern \"C\" { fn c1() -> i32; }\nfn main() { std::process::exit(unsafe { c1() }) }\n";

/// A rustc of its own, with what is below `lib/rustlib/TARGET/lib` behind a link; and where that is.
fn own_rustc(project: &mut Crate) -> std::path::PathBuf {
    let root = project.project.root.join("tc");
    let real = shown(Path::new(&project.rustc).parent().unwrap().parent().unwrap());
    let host = support::rust::host(&project.rustc);
    let (own, standard) = (format!("lib/rustlib/{host}"), project.project.root.join("standard"));
    sh(
        project,
        &format!(
            "mkdir -p tc/bin tc/{own} && cp {real}/bin/rustc tc/bin/ && for f in {real}/lib/*.so*; do cp -l $f tc/lib/ || cp $f tc/lib/; done; \
            for f in {real}/{own}/*; do ln -s $f tc/{own}/; done; rm tc/{own}/lib && cp -r {real}/{own}/lib standard && \
            ln -s {} tc/{own}/lib",
            shown(&standard)
        ),
    );
    project.rustc = shown(&root.join("bin/rustc"));
    standard
}

#[test]
fn a_sysroot_counts_behind_links_and_what_else_is_below_it_as_any_file() {
    if !has_tools() {
        return;
    }
    let mut project = Crate::with(&[("src/m.rs", MAIN), ("src/lib.rs", "pub fn f() {}\n")]);
    let standard = own_rustc(&mut project);
    let native = project.project.root.join("tc/lib/native");
    std::fs::create_dir(&native).unwrap();
    let line = format!("{} -L native={} -l static:-bundle=c1", bin("m"), shown(&native));
    let mut made = Vec::new();
    for value in ["3", "4"] {
        object(&project, value);
        sh(&project, &format!("rm -f {0}/libc1.a; ar crD {0}/libc1.a c1.o", shown(&native)));
        made.push(project.check(&line));
        assert_eq!(project.check(&line), made[made.len() - 1]);
    }
    assert_ne!(made[0], made[1]);
    assert_eq!(project.counters().local(), [4, 2, 2, 0]);
    project.check(LIB);
    sh(&project, &format!("rm {}/libcore-*", shown(&standard)));
    assert_eq!(project.check_status(LIB).0, Some(1), "there is no `core`");
}

#[test]
fn libraries_that_are_not_what_they_hold_are_refused_or_tracked() {
    if !has_tools() {
        return;
    }
    let attribute = |more: &str| {
        format!(
            "#[link(name = \"c1\", kind = \"static\"{more})]\nextern \"C\" {{ fn c1() -> i32; }}\npub fn f() -> i32 {{ unsafe {{ c1() }} }}\n"
        )
    };
    let project = Crate::with(&[
        ("src/m.rs", MAIN),
        ("src/own.rs", &attribute("")),
        ("src/verbatim.rs", &attribute(", modifiers = \"+verbatim\"").replace("\"c1\"", "\"c1.bin\"")),
        ("n/libother.a", "!<arch>\n"),
    ]);
    let search = format!("-L native={}/n", shown(&project.project.root));
    let make = |value: &str| {
        object(&project, value);
        sh(
            &project,
            "cd n && mv ../c1.o c1.rcgu.o && rm -f libc1.a c1.bin && ar crD libc1.a c1.rcgu.o && cp libc1.a c1.bin",
        );
    };
    for name in ["own", "verbatim"] {
        let line = format!("{} {search}", named(name));
        make("3");
        let first = project.check(&line);
        make("4");
        assert_ne!(project.check(&line), first, "{name}");
    }
    let counters = project.counters();
    assert_eq!(counters.reason("library by the name of its file"), 2, "{}", counters.0);
    let line = format!("{} {search} -l static:-bundle=c1", bin("m"));
    let mut made = Vec::new();
    for value in ["3", "4"] {
        object(&project, value);
        sh(&project, "cp c1.o n/ && cd n && rm libc1.a && ar crDT libc1.a c1.o");
        made.push(project.check(&line));
    }
    assert_ne!(made[0], made[1]);
    assert_eq!(project.counters().reason("thin archive"), 2);
}

#[test]
fn the_linker_counts_as_it_is_found_and_is_told_only_what_is_known() {
    if !has_tools() {
        return;
    }
    let mut project = Crate::with(&[("src/m.rs", "fn main() {}\n")]);
    let line = bin("m");
    project.check(&line);
    sh(&project, "mkdir x && printf '#!/bin/sh\\nexit 1\\n' >x/ld && chmod +x x/ld");
    let path = std::env::var("PATH").unwrap();
    project.project.set("PATH", &format!("{}/x:{path}", shown(&project.project.root)));
    project.check_status(&line);
    assert_eq!(project.counters().local(), [2, 0, 2, 0], "another linker would be found");
    project.project.set("PATH", &path);
    for argument in ["-Wl,--print-archive-stats=f", "-l:x.o"] {
        project.run(&format!("{line} -C link-arg={argument}"));
        assert_eq!(project.counters().reason(&format!("linking with `{argument}`")), 1);
    }
}

#[test]
fn a_folder_behind_a_link_is_not_taken_for_another() {
    if !has_tools() {
        return;
    }
    let project = Crate::with(&[("src/m.rs", MAIN)]);
    sh(
        &project,
        "mkdir -p real/sub real/libs libs && ln -s real/sub link && printf '!<arch>\\n' >libs/libc1.a",
    );
    let line =
        format!("{} -L native={}/link/../libs -l static:-bundle=c1", bin("m"), shown(&project.project.root));
    let mut made = Vec::new();
    for value in ["3", "4"] {
        object(&project, value);
        sh(&project, "rm -f real/libs/libc1.a; ar crD real/libs/libc1.a c1.o");
        made.push(project.check(&line));
    }
    assert_ne!(made[0], made[1]);
}

#[test]
fn crates_behind_the_named_ones_count() {
    let text = "#[macro_export] macro_rules! m { () => { let x = 1; } } // one comment\n";
    let project = Crate::with(&[
        ("src/a.rs", text),
        ("src/b.rs", "pub use a::m;\n"),
        ("src/c.rs", "pub fn f() { b::m!(); }\n"),
        ("target/deps/none", ""),
    ]);
    let out = format!("{}/{OUT}", shown(&project.project.root));
    let cargos = |line: String, name: &str| {
        line.replace("-C extra-filename=-1f", &format!("-C extra-filename=-{name}000000000000000"))
    };
    let b = format!("{} --extern a={out}/liba-a000000000000000.rmeta", cargos(named("b"), "b"));
    let c = format!("{} --extern b={out}/libb-b000000000000000.rmeta", cargos(named("c"), "c"));
    let run = |line: &str| assert!(project.run(line).status.success(), "{line}");
    run(&cargos(named("a"), "a"));
    run(&b);
    project.counters();
    let first = project.check_but_for(&c, "000");
    assert_eq!(project.check_but_for(&c, "000"), first);
    assert_eq!(project.counters().local(), [2, 1, 1, 0]);
    project.write("src/a.rs", &text.replace("one comment", "another"));
    run(&cargos(named("a"), "a"));
    run(&b);
    project.counters();
    project.check_but_for(&c, "000");
    assert_eq!(project.counters().local(), [1, 0, 1, 0], "a message shows it");
    std::fs::remove_file(format!("{out}/liba-a000000000000000.rmeta")).unwrap();
    std::fs::remove_file(format!("{out}/liba-a000000000000000.rlib")).unwrap();
    assert!(!project.plain(&c).status.success());
    assert!(!project.run(&c).status.success(), "a crate is missing");
}

#[test]
fn what_macros_read_of_a_package_counts_and_what_its_build_script_names() {
    let list = "#[proc_macro] pub fn list(_: TokenStream) -> TokenStream {\n\
        let root = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();\n\
        let folder = std::fs::read_dir(root + \"/assets\").unwrap();\n\
        format!(\"{}\", folder.count()).parse().unwrap() }\n";
    let mut project = Crate::with(&[
        ("src/m.rs", &format!("{MACROS}{list}")),
        ("src/lib.rs", "pub const N: usize = m::list!();\n"),
        ("src/plain.rs", "pub fn f() {}\n"),
        ("assets/1", ""),
        ("target/deps/none", ""),
        ("target/CACHEDIR.TAG", ""),
        ("target/build/a/output", "cargo:rerun-if-changed=assets\ncargo::rerun-if-env-changed=WHO\n"),
        ("target/build/a/out/x", ""),
    ]);
    let root = shown(&project.project.root);
    project.project.set("CARGO_MANIFEST_DIR", &root);
    assert!(project.run(&macros("m")).status.success());
    let line = format!("{LIB} --extern m={root}/{OUT}/libm-1f.so");
    project.counters();
    let check = |project: &Crate, line: &str, hits: u64, what: &str| {
        let made = project.check_but_for(line, "libm-1f");
        assert_eq!(project.counters().local(), [1, hits, 1 - hits, 0], "{what}");
        made
    };
    let first = check(&project, &line, 0, "new");
    check(&project, &line, 1, "nothing has changed");
    project.write("assets/2", "");
    assert_ne!(check(&project, &line, 0, "a new file in the package"), first);
    // Without macros only what the build script says counts.
    let plain = named("plain");
    project.project.set("OUT_DIR", &format!("{root}/target/build/a/out"));
    check(&project, &plain, 0, "new");
    project.write("README", "");
    check(&project, &plain, 1, "nothing that the script names");
    project.write("assets/3", "");
    check(&project, &plain, 0, "a file in a folder that the script names");
    project.project.set("WHO", "me");
    check(&project, &plain, 0, "a variable that it names");
}

#[test]
fn dep_info_and_outputs_are_as_rustc_leaves_them() {
    let files = [
        (
            "src/lib.rs",
            "mod main;\n#[inline(never)]\npub fn v() -> bool { option_env!(\"V\").is_some() }\ninclude!(\"x$$y.rs\");\n",
        ),
        ("src/main.rs", ""),
        ("src/x$$y.rs", ""),
        ("src/x$y.rs", ""),
        ("target/CACHEDIR.TAG", ""),
    ];
    let first = Crate::with(&files);
    let sources = shown(&first.project.root);
    let second = first.another();
    let line = LIB.replace("src/lib.rs", &format!("{sources}/src/lib.rs -C opt-level=2"));
    for (project, hits) in [(&first, 0), (&second, 1)] {
        let target = shown(&project.project.root.join(OUT));
        let mut project = project.another();
        project.project.root.clone_from(&first.project.root);
        // It names a folder of the first, and does so in the second.
        project.project.set("V", &format!("{sources}/target/x"));
        let line = line.replace(OUT, &target);
        project.check_as(&line, &line, Path::new(&target));
        assert_eq!(project.counters().local(), [1, hits, 1 - hits, 0]);
    }
    first.write("src/x$$y.rs", "pub fn y() {}\n");
    first.check(LIB);
    first.check(LIB);
    assert_eq!(first.counters().local(), [2, 1, 1, 0]);
    // rustc makes no folder for outputs.
    let nowhere = LIB.replace("--out-dir target/deps", "--out-dir target/nowhere");
    assert_eq!(first.run(&nowhere).status.code(), first.plain(&nowhere).status.code());
    first.write("src/main/mod.rs", "");
    assert_eq!(first.check_status(LIB).0, Some(1), "rustc doesn't know which module to take");
    first.run(&LIB.replace("--crate-type lib", ""));
    assert_eq!(first.counters().reason("no crate type is asked for"), 1);
}

#[test]
fn a_path_that_a_macro_of_another_crate_takes_counts() {
    let macros = "#[macro_export] macro_rules! fp { () => { $crate::hash(env!(\"OUT_DIR\")) } }\n\
        pub const fn hash(s: &str) -> u64 { let b = s.as_bytes(); let mut h = 7; let mut i = 0;\n\
        while i < b.len() { h = h * 31 % 1_000_003 + b[i] as u64; i += 1; } h }\n";
    let include = "include!(concat!(env!(\"OUT_DIR\"), \"/g.rs\"));\n";
    let first = Crate::with(&[
        ("src/tool.rs", macros),
        ("src/lib.rs", &format!("{include}pub const F: u64 = tool::fp!();\n")),
        ("src/main.rs", include),
        ("target/g/g.rs", ""),
        ("target/deps/none", ""),
        ("target/CACHEDIR.TAG", ""),
    ]);
    let second = first.another();
    let sources = shown(&first.project.root);
    for (source, hits) in [("lib", 0), ("main", 1)] {
        for (project, hits) in [(&first, 0), (&second, hits)] {
            let target = shown(&project.project.root.join("target"));
            let mut project = project.another();
            project.project.root.clone_from(&first.project.root);
            project.project.set("OUT_DIR", &format!("{target}/g"));
            project.project.set("CASTWORK_REMAP", "yes");
            let out = format!("{target}/deps");
            let maps =
                format!("--remap-path-prefix={sources}=/castwork/p --remap-path-prefix={target}=/castwork/b");
            let made = project.run(&named("tool").replace(OUT, &out));
            assert!(made.status.success());
            sh(&project, &format!("mkdir -p {target}/tool && cp {out}/libtool-1f.rmeta {target}/tool/"));
            project.counters();
            let line = LIB.replace("src/lib.rs", &format!("{sources}/src/{source}.rs")).replace(OUT, &out);
            let line = if source == "lib" {
                format!("{line} --extern tool={target}/tool/libtool-1f.rmeta")
            } else {
                line
            };
            project.check_as(&line, &format!("{line} {maps}"), Path::new(&out));
            assert_eq!(project.counters().local(), [1, hits, 1 - hits, 0], "{source}");
        }
    }
}

#[test]
fn a_crate_of_macros_that_is_searched_for_is_not_understood() {
    let project = Crate::with(&[
        (
            "src/mac.rs",
            "extern crate proc_macro;\n#[proc_macro]\npub fn m(_: proc_macro::TokenStream) -> proc_macro::TokenStream { \"7\".parse().unwrap() }\n",
        ),
        ("src/lib.rs", "#[macro_use]\nextern crate mac;\npub const A: i32 = mac::m!();\n"),
        ("mac/other.so", "no library"),
    ]);
    let made = project.plain(
        "--crate-name mac --edition=2021 --crate-type proc-macro --emit=link src/mac.rs -o mac/libmac.so",
    );
    assert!(made.status.success(), "{made:?}");
    project.check(&format!("{LIB} -L mac"));
    assert_eq!(project.counters().reason("crates that are searched for"), 1);
    // A library that is no crate is none that is searched for.
    project.write("src/lib.rs", "pub const A: i32 = 7;\n");
    std::fs::remove_file(project.project.root.join("mac/libmac.so")).unwrap();
    std::fs::remove_file(project.project.root.join("mac/other.so")).unwrap();
    project.check(&format!("{LIB} -L mac"));
    assert_eq!(project.counters().local(), [1, 0, 1, 0]);
}
