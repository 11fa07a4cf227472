//! The wrapper gives what rustc gives, here and in other folders, and runs it again whenever something counts.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::rust::{Crate, LIB, OUT};
use support::{program, shown, text};

#[test]
fn a_second_compile_is_a_hit_with_the_same_files_and_messages() {
    let project =
        Crate::with(&[("src/lib.rs", "mod a;\npub fn f() { let unused = 1; }\n"), ("src/a.rs", "")]);
    for line in [
        LIB.to_owned(),
        LIB.replace("--error-format=json --json=diagnostic-rendered-ansi,artifacts", ""),
        format!("{LIB} -g"),
        LIB.replace(",link", ""),
        format!("{LIB} --test").replace("--crate-type lib", ""),
    ] {
        project.check(&line);
        project.check(&line);
        assert_eq!(project.counters().local(), [2, 1, 1, 0], "{line}");
    }
}

#[test]
fn programs_and_macros_are_linked_once() {
    let project = Crate::with(&[
        ("src/main.rs", "fn main() { println!(\"hello\"); }\n"),
        (
            "src/macros.rs",
            "extern crate proc_macro;\n#[proc_macro]\npub fn m(t: proc_macro::TokenStream) -> proc_macro::TokenStream { t }\n",
        ),
        ("src/lib.rs", "#[no_mangle]\npub extern \"C\" fn f() -> i32 { 7 }\n"),
    ]);
    for line in [
        LIB.replace("src/lib.rs", "src/main.rs")
            .replace("--crate-type lib", "--crate-type bin")
            .replace("metadata,", ""),
        LIB.replace("src/lib.rs", "src/macros.rs")
            .replace("--crate-type lib", "--crate-type proc-macro -C prefer-dynamic --extern proc_macro")
            .replace("metadata,", ""),
        LIB.replace("--crate-type lib", "--crate-type cdylib --crate-type rlib").replace("metadata,", ""),
    ] {
        let linked = project.check(&line);
        assert_eq!(project.check(&line), linked);
        assert_eq!(project.counters().local(), [2, 1, 1, 0], "{line}");
        if line.contains("type bin") {
            let ran = project.project.plain(&format!("{OUT}/a-1f"));
            assert_eq!(text(&ran.stdout), "hello\n");
        }
    }
}

#[test]
fn whatever_a_compile_depends_on_makes_it_another() {
    let files = [
        (
            "src/lib.rs",
            "pub mod m;\npub const T: &str = include_str!(\"t.txt\");\npub const V: Option<&str> = option_env!(\"V\");\n\
            #[cfg(c)] pub fn c() {}\ninclude!(concat!(env!(\"OUT_DIR\"), \"/g.rs\"));\npub fn x() -> i32 { b::b() }\n",
        ),
        ("src/m.rs", "pub fn m() -> i32 { 1 }\n"),
        ("src/t.txt", "1"),
        ("target/g/g.rs", "pub fn g() -> i32 { 1 }\n"),
        ("src/b.rs", "pub fn b() -> i32 { 1 }\n"),
        ("Cargo.toml", "[package]\n"),
    ];
    let mut project = Crate::with(&files);
    let root = shown(&project.project.root);
    project.project.set("OUT_DIR", &format!("{root}/target/g"));
    project.project.set("CARGO_MANIFEST_DIR", &root);
    let extern_crate = LIB.replace("--crate-name a", "--crate-name b").replace("src/lib.rs", "src/b.rs");
    project.check(&extern_crate);
    let line = format!("{LIB} --extern b={root}/{OUT}/libb-1f.rmeta");
    // The crate that is named has to stay.
    let check = |project: &Crate, line: &str| project.check_but_for(line, "libb-1f");
    let mut known = vec![check(&project, &line)];
    assert_eq!(check(&project, &line), known[0]);
    project.counters();
    let mut expect_new = |project: &Crate, line: &str, what: &str, shows: bool| {
        let made = check(project, line);
        assert_eq!(project.counters().local(), [1, 0, 1, 0], "{what}");
        assert_eq!(check(project, line), made, "{what}");
        assert_eq!(project.counters().local(), [1, 1, 0, 0], "{what}");
        assert!(!shows || !known.contains(&made), "{what} doesn't show, so this tests nothing");
        known.push(made);
    };
    for (file, text) in [
        ("src/lib.rs", format!("{}// new\npub fn y() {{}}\n", files[0].1)),
        ("src/m.rs", "pub fn m() -> i32 { 2 }\n".to_owned()),
        ("src/t.txt", "2".to_owned()),
        ("target/g/g.rs", "pub fn g() -> i32 { 2 }\n".to_owned()),
    ] {
        project.write(file, &text);
        expect_new(&project, &line, file, true);
    }
    for value in ["1", "", "2"] {
        project.project.set("V", value);
        expect_new(&project, &line, &format!("V={value:?}"), true);
    }
    project.project.set("CARGO_PKG_VERSION", "1.2.3");
    expect_new(&project, &line, "what macros may ask for", false);
    project.write("Cargo.toml", "[package]\nname = \"a\"\n");
    expect_new(&project, &line, "what macros may read", false);
    for more in ["--cfg c", "-C opt-level=2", "-C debuginfo=1", &format!("--remap-path-prefix={root}=/x -g")]
    {
        expect_new(&project, &format!("{line} {more}"), more, true);
    }
    project.write("src/b.rs", "pub fn b() -> i32 { 2 }\n#[inline] pub fn i() {}\n");
    project.check_but_for(&extern_crate, "nothing");
    project.counters();
    expect_new(&project, &line, "the crate that is named", true);
}

#[test]
fn a_module_that_appears_in_its_other_place_is_seen() {
    let project = Crate::with(&[("src/lib.rs", "mod m;\n"), ("src/m.rs", "")]);
    project.check(LIB);
    project.write("src/m/mod.rs", "");
    let (status, _) = project.check_status(LIB);
    assert_eq!(status, Some(1), "rustc doesn't know which to take");
    assert_eq!(project.counters().local(), [2, 0, 2, 0]);
}

#[test]
fn another_rustc_is_not_taken_for_this_one() {
    let project = Crate::with(&[("src/lib.rs", "pub fn f() {}\n")]);
    project.check(LIB);
    let mut other = project.another();
    let real = Path::new(&other.rustc);
    let (bin, lib) = (other.project.root.join("other/bin"), other.project.root.join("other/lib"));
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(real.parent().unwrap().with_file_name("lib"), lib).unwrap();
    let mut bytes = std::fs::read(real).unwrap();
    bytes.push(0);
    std::fs::write(bin.join("rustc"), bytes).unwrap();
    std::fs::set_permissions(bin.join("rustc"), real.metadata().unwrap().permissions()).unwrap();
    other.rustc = shown(&bin.join("rustc"));
    other.check(LIB);
    assert_eq!(other.counters().local(), [2, 0, 2, 0]);
}

#[test]
fn an_error_is_rustcs_own_and_is_not_kept() {
    let project = Crate::with(&[
        ("src/lib.rs", "pub fn f() -> i32 { \"no\" }\n"),
        ("src/main.rs", "extern \"C\" { fn nowhere(); }\nfn main() { unsafe { nowhere() } }\n"),
        ("src/wrong.rs", "fn main() { 1 + }\n"),
    ]);
    let bin = LIB.replace("--crate-type lib", "--crate-type bin").replace("metadata,", "");
    for _ in 0..2 {
        for line in
            [LIB, &bin.replace("src/lib.rs", "src/main.rs"), &bin.replace("src/lib.rs", "src/wrong.rs")]
        {
            assert_eq!(project.check_status(line).0, Some(1), "{line}");
        }
    }
    assert_eq!(project.counters().number("local_hits"), 0);
}

#[test]
fn what_is_not_cached_is_passed_through_with_its_reason() {
    let project = Crate::with(&[("src/lib.rs", "pub fn f() {}\n"), ("src/main.rs", "fn main() {}\n")]);
    let bin = LIB
        .replace("--crate-type lib", "--crate-type bin")
        .replace("metadata,", "")
        .replace("src/lib.rs", "src/main.rs");
    for (line, reason) in [
        (format!("{LIB} -C incremental={OUT}/i"), "incremental compilation"),
        (format!("{LIB} -C target-cpu=native"), "`-C target-cpu=native`"),
        (LIB.replace("--emit=dep-info,metadata,link", "--emit=metadata"), "no dep-info is asked for"),
        (LIB.replace("--crate-type lib", "--crate-type staticlib"), "crate type `staticlib`"),
        (format!("{bin} -C lto=thin"), "linking with `-C lto=thin`"),
        (format!("{bin} -C link-arg=-Wl,-Map=map"), "linking with `-Wl,-Map=map`"),
    ] {
        project.run(&line);
        let counters = project.counters();
        assert_eq!((counters.local(), counters.reason(reason)), ([0, 0, 0, 1], 1), "{line}: {}", counters.0);
    }
    assert_eq!(project.project.cached(&format!("{} -vV", project.rustc)).stdout, project.plain("-vV").stdout);
    assert_eq!(project.counters().reason("asks about the compiler"), 1);
}

/// Makes `libc1.a` with a function of C in a folder.
fn static_library(project: &Crate, folder: &str, value: &str) {
    project.write("c1.c", &format!("int c1(void) {{ return {value}; }}\n"));
    std::fs::create_dir_all(project.project.root.join(folder)).unwrap();
    let script = format!("gcc -c c1.c -o c1.o && rm -f {folder}/libc1.a && ar crD {folder}/libc1.a c1.o");
    assert!(project.project.command("sh").args(["-c", &script]).status().unwrap().success());
    project.write("tick", "");
}

#[test]
fn libraries_of_c_count_in_crates_and_in_links() {
    if program("ar").is_none() {
        return support::skip("static libraries", "there is no ar");
    }
    let source = "extern \"C\" { fn c1() -> i32; }\npub fn f() -> i32 { unsafe { c1() } }\n";
    let project = Crate::with(&[
        ("src/lib.rs", source),
        ("src/attribute.rs", &format!("#[link(name = \"c1\", kind = \"static\")]\n{source}")),
        ("src/main.rs", &format!("{source}fn main() {{ std::process::exit(f()) }}\n")),
    ]);
    let root = shown(&project.project.root);
    let search = format!("-L native={root}/c0 -L native={root}/c");
    std::fs::create_dir(project.project.root.join("c0")).unwrap();
    let lib = format!("{LIB} {search} -l static=c1");
    let attribute = format!("{LIB} {search}").replace("src/lib.rs", "src/attribute.rs");
    let bin = lib
        .replace("--crate-type lib", "--crate-type bin")
        .replace("metadata,", "")
        .replace("src/lib.rs", "src/main.rs");
    for line in [lib, attribute, bin] {
        static_library(&project, "c", "3");
        let first = project.check(&line);
        assert_eq!(project.check(&line), first);
        assert_eq!(project.counters().local(), [2, 1, 1, 0], "{line}");
        static_library(&project, "c", "4");
        let second = project.check(&line);
        assert_ne!(second, first);
        static_library(&project, "c0", "5");
        assert_ne!(project.check(&line), second, "one that is found first has appeared");
        assert_eq!(project.counters().local(), [2, 0, 2, 0], "{line}");
        std::fs::remove_file(project.project.root.join("c0/libc1.a")).unwrap();
    }
}

#[test]
fn another_folder_shares_what_does_not_show_it() {
    let files = [
        ("src/lib.rs", "pub fn f() -> i32 { 1 }\n"),
        ("src/gen.rs", "include!(concat!(env!(\"OUT_DIR\"), \"/g.rs\"));\n"),
        ("target/g/g.rs", "pub fn g() -> &'static str { file!() }\n"),
        ("target/CACHEDIR.TAG", ""),
        ("src/env.rs", "pub const A: &str = env!(\"OUT_DIR\");\n"),
    ];
    let lines =
        ["lib", "gen", "env"].map(|name| LIB.replace("src/lib.rs", &format!("SOURCES/src/{name}.rs")));
    for (remap, hits) in [("no", [true, false, false]), ("yes", [true, true, false])] {
        let first = Crate::with(&files);
        let second = first.another();
        let sources = shown(&first.project.root);
        for (line, is_hit) in lines.iter().zip(hits) {
            // As crates of a registry are: sources in one place, the working folder there, outputs in many.
            let line = line.replace("SOURCES", &sources);
            for (project, expected) in
                [(&first, [1, 0, 1, 0]), (&second, [1, u64::from(is_hit), u64::from(!is_hit), 0])]
            {
                let target = shown(&project.project.root.join("target"));
                let mut project = project.another();
                project.project.root = first.project.root.clone();
                project.project.set("OUT_DIR", &format!("{target}/g"));
                project.project.set("CASTWORK_REMAP", remap);
                let maps = format!(
                    "--remap-path-prefix={sources}=/castwork/p --remap-path-prefix={target}=/castwork/b"
                );
                let plain = if remap == "yes" { format!("{line} {maps}") } else { line.clone() };
                let out = format!("{target}/deps");
                project.check_as(&line.replace(OUT, &out), &plain.replace(OUT, &out), Path::new(&out));
                assert_eq!(project.counters().local(), expected, "remap {remap}: {line} in {target}");
            }
        }
    }
}

#[test]
fn what_made_a_crate_a_miss_is_said() {
    let mut project = Crate::with(&[
        ("src/lib.rs", "mod m;\npub const V: Option<&str> = option_env!(\"V\");\n"),
        ("src/m.rs", ""),
    ]);
    project.check(LIB);
    project.write("src/m.rs", "// new\n");
    project.check(LIB);
    let said = || text(&project.project.cached("why src/lib.rs").stdout);
    assert!(said().contains("m.rs` has changed"), "{}", said());
    project.project.set("V", "1");
    project.check(LIB);
    let said = text(&project.project.cached("why --last").stdout);
    assert!(said.contains("`V` was `(not set)` and is `1`"), "{said}");
}

#[test]
fn a_shared_folder_serves_a_cache_that_is_empty() {
    let mut project = Crate::with(&[("src/lib.rs", "pub fn f() {}\n"), ("src/main.rs", "fn main() {}\n")]);
    let bin = LIB
        .replace("--crate-type lib", "--crate-type bin")
        .replace("metadata,", "")
        .replace("src/lib.rs", "src/main.rs");
    let shared = shown(&project.project.root.with_file_name("shared"));
    project.project.set("CASTWORK_REMOTE", &format!("file://{shared}"));
    for hits in [0, 2] {
        project.project.cache = project.project.root.with_file_name(format!("cache-{hits}"));
        project.check(LIB);
        project.check(&bin);
        assert_eq!(project.counters().number("remote_hits"), hits);
        project.check(LIB);
        assert_eq!(project.counters().number("local_hits"), 1, "it is kept here as well");
    }
}
