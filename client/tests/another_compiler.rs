//! Another compiler where there was one: by another script, link, assembler, library or specs. The oracle is the bare
//! compiler, each time.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};

use support::{Project, cross_compilers, program, shown, text};

#[test]
fn another_compiler_under_the_same_name_is_another_compiler() {
    let project = Project::with(&[("a.c", "int x = VALUE;\n")]);
    let script = project.root.join("mygcc");
    let write = |value: u32| {
        std::fs::write(&script, format!("#!/bin/sh\nexec gcc -DVALUE={value} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    };
    write(1);
    project.check_change(&format!("{} -c a.c", shown(&script)), || write(2));
    assert_eq!(project.counters().reason("compiler is a script"), 4);
}

#[test]
fn specs_plug_ins_and_other_assemblers_are_passed_through() {
    let project =
        Project::with(&[("a.c", "int x = VALUE;\n"), ("s.specs", "*cpp_unique_options:\n+ -DVALUE=1\n\n")]);
    project.check_change("gcc -specs=s.specs -c a.c", || {
        project.write("s.specs", "*cpp_unique_options:\n+ -DVALUE=2\n\n");
    });
    let project = Project::with(&[("a.c", "int x;\n")]);
    let assembler = project.root.join("tools/as");
    let write = |section: &str| {
        std::fs::create_dir_all(assembler.parent().unwrap()).unwrap();
        let text = format!("#!/bin/sh\nas \"$@\" --defsym {section}=1\n");
        std::fs::write(&assembler, text).unwrap();
        std::fs::set_permissions(&assembler, PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("one");
    project.check_change("gcc -Btools -c a.c", || write("two"));
}

#[test]
fn another_assembler_first_on_the_path_is_seen() {
    let mut project = Project::with(&[("a.c", "int x;\n")]);
    let before = project.check("gcc -c a.c");
    let assembler = project.root.join("tools/as");
    std::fs::create_dir_all(assembler.parent().unwrap()).unwrap();
    std::fs::write(
        &assembler,
        format!("#!/bin/sh\n{} \"$@\" --defsym other=1\n", shown(&program("as").unwrap())),
    )
    .unwrap();
    std::fs::set_permissions(&assembler, PermissionsExt::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    project.set("PATH", &format!("{}:{path}", shown(assembler.parent().unwrap())));
    assert_ne!(project.check("gcc -c a.c"), before);
}

#[test]
fn a_link_that_is_turned_to_another_compiler_is_seen() {
    let Some(other) = cross_compilers().into_iter().find(|name| name.starts_with("aarch64")) else { return };
    let other = program(&other.replace("g++", "gcc")).unwrap();
    let project = Project::with(&[("a.c", "int x;\n"), ("b.c", "int y;\n"), ("v1/x", ""), ("v2/x", "")]);
    symlink(program("gcc").unwrap(), project.root.join("v1/gcc")).unwrap();
    symlink(&other, project.root.join("v2/gcc")).unwrap();
    let gcc = shown(&project.root.join("current/gcc"));
    project.turn("current", "v1");
    project.check_change(&format!("{gcc} -c a.c"), || project.turn("current", "v2"));
    // What the other one makes is no result of the first.
    project.check_change(&format!("{gcc} -c b.c"), || project.turn("current", "v1"));
    assert_eq!(project.counters().local(), [8, 4, 4, 0], "both are cached");
    // The same for a link to the compiler itself.
    let gcc = shown(&project.root.join("cc-link"));
    project.turn("cc-link", "v1/gcc");
    project.check_change(&format!("{gcc} -c a.c"), || project.turn("cc-link", "v2/gcc"));
    assert_eq!(project.counters().local(), [4, 4, 0, 0], "by whatever name");
}

#[test]
fn specs_that_appear_where_a_variable_leads_are_seen() {
    let specs = "*cc1:\n+ -DS=1\n\n";
    for (folders, file) in [("lib", "lib/specs"), ("/nowhere:", "specs"), ("", "specs")] {
        let mut project =
            Project::with(&[("a.c", "#ifndef S\n#define S 0\n#endif\nint x = S;\n"), ("lib/other", "")]);
        project.set("LIBRARY_PATH", folders);
        project.check_change("gcc -c a.c", || project.write(file, specs));
        assert_eq!(project.counters().local(), [2, 1, 1, 2], "{folders}: cached until they are there");
    }
    let source = "#ifndef S\n#define S 0\n#endif\nint x = S;\n";
    for name in ["LPATH", "LIBRARY_PATH"] {
        let mut project = Project::with(&[("a.c", source), ("specs", specs)]);
        let before = project.check("gcc -c a.c");
        project.set(name, "");
        assert_ne!(project.check("gcc -c a.c"), before, "{name}: set to nothing is the working folder");
    }
}

#[test]
fn a_library_that_appears_in_an_earlier_folder_is_seen() {
    let mut project = Project::with(&[
        ("a.c", "double d = 1.5;\n"),
        ("lib/other", ""),
        (
            "shim.c",
            r#"
            #define _GNU_SOURCE
            #include <dlfcn.h>
            #include <string.h>
            int mpfr_strtofr(void *x, const char *s, char **end, int base, int round) {
                int (*real)(void *, const char *, char **, int, int) = dlsym(RTLD_NEXT, "mpfr_strtofr");
                return real(x, strcmp(s, "1.5") ? s : "2.5", end, base, round);
            }
            "#,
        ),
    ]);
    let frontend = project.plain("gcc -print-prog-name=cc1");
    let listed = std::process::Command::new("ldd").arg(text(&frontend.stdout).trim()).output().unwrap();
    let listed = text(&listed.stdout);
    let Some(real) = listed.lines().find_map(|line| line.trim().strip_prefix("libmpfr.so.6 => ")) else {
        return support::skip(
            "a_library_that_appears_in_an_earlier_folder_is_seen",
            "gcc has no libmpfr.so.6",
        );
    };
    let real = real.split(' ').next().unwrap();
    // The real one under another name, so that both can be loaded.
    let renamed = std::fs::read(real).unwrap();
    let at = renamed.windows(13).position(|name| name == b"libmpfr.so.6\0").unwrap();
    let renamed = [&renamed[..at], b"libmpfs.so.6", &renamed[at + 12..]].concat();
    project.write("built/other", "");
    std::fs::write(project.root.join("built/libmpfs.so.6"), renamed).unwrap();
    let built = project.plain(
        "gcc -shared -fPIC shim.c -o built/libmpfr.so.6 -Wl,-soname,libmpfr.so.6 -Wl,--no-as-needed -Lbuilt \
         -l:libmpfs.so.6 -Wl,-rpath,$ORIGIN",
    );
    assert!(built.status.success(), "{}", text(&built.stderr));
    let folder = shown(&project.root.join("lib"));
    project.set("LD_LIBRARY_PATH", &folder);
    project.check_change("gcc -c a.c", || {
        for name in ["libmpfr.so.6", "libmpfs.so.6"] {
            std::fs::copy(project.root.join("built").join(name), project.root.join("lib").join(name))
                .unwrap();
        }
        project.write("tick", "");
    });
    assert_eq!(project.counters().local(), [4, 2, 2, 0], "both are cached");
}
