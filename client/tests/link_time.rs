//! Objects for link-time optimisation, shared among folders (`CASTWORK_SHARE_LTO`): what is linked from them is what it is
//! without us.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use support::{Project, program, shown, skip, text};

/// A module as pybind11's are compiled: nothing of it tells its folder.
const FILES: [(&str, &str); 3] = [
    (
        "src/a.cc",
        "#include <string>\n#include \"h.h\"\nnamespace { struct S { virtual ~S() {} int x = 3; }; }\n\
         static int __attribute__((noinline)) by_itself(int x) { S s; return s.x * twice(x); }\n\
         static std::string at_start(2, 'x');\nint other(int);\nint warns(int x) { int y; return x; }\n\
         extern \"C\" __attribute__((visibility(\"default\"))) int f(int x) { return by_itself(x) + other(at_start.size()); }\n",
    ),
    (
        "src/b.cc",
        "#include \"h.h\"\n#line 70 \"made.y\"\nint other(int x) { return x > 2 ? twice(x) : x; }\n",
    ),
    ("inc/h.h", "inline int twice(int x) { return 2 * x; }\n"),
];

/// As pybind11 has them for its modules.
const FLAGS: &str = "-O2 -fPIC -flto -fno-fat-lto-objects -fvisibility=hidden";

fn sharing(files: &[(&str, &str)]) -> Project {
    let mut project = Project::with(files);
    project.set("CASTWORK_SHARE_LTO", "yes");
    project
}

/// The same project in another folder, with the same cache and settings.
fn copy(project: &Project, name: &str) -> Project {
    let mut copy = project.copy(name);
    copy.variables.clone_from(&project.variables);
    copy
}

/// Compiles sources by their whole paths, as `CMake` has it done, and links them to a library; without the wrapper, and with
/// it: messages and library have to be the same. Returns the library, and how many compiles were hits.
fn build(project: &Project, flags: &str, sources: &[&str]) -> (Vec<u8>, u64) {
    let root = shown(&project.root);
    let objects: Vec<String> = (0..sources.len()).map(|n| format!("{n}.o")).collect();
    let linked = |is_cached: bool| {
        let mut said = Vec::new();
        for (source, object) in sources.iter().zip(&objects) {
            let line = format!("g++ {flags} -I{root}/inc -Wall -c {root}/{source} -o {object}");
            let ran = if is_cached { project.cached(&line) } else { project.plain(&line) };
            assert!(ran.status.success(), "{line}: {}", text(&ran.stderr));
            said.push(text(&ran.stderr));
        }
        let line = format!("g++ {flags} -shared {} -o lib.so", objects.join(" "));
        let ran = project.plain(&line);
        assert!(ran.status.success(), "{line}: {}", text(&ran.stderr));
        for object in &objects {
            std::fs::remove_file(project.root.join(object)).unwrap();
        }
        (std::fs::read(project.root.join("lib.so")).unwrap(), said)
    };
    let (plain, says) = linked(false);
    let _ = project.counters();
    let (cached, said) = linked(true);
    assert_eq!(said, says, "{flags}");
    assert!(cached == plain, "{flags}: another library in {root}");
    (cached, project.counters().number("local_hits"))
}

/// Whether a library holds a text.
fn holds(library: &[u8], wanted: &str) -> bool {
    library.windows(wanted.len()).any(|part| part == wanted.as_bytes())
}

#[test]
fn what_was_compiled_in_another_folder_is_linked_to_the_same_library() {
    let here = sharing(&FILES);
    let there = copy(&here, "another-folder");
    let third = copy(&here, "third");
    for flags in [
        FLAGS,
        "-O2 -fPIC -flto -fvisibility=hidden -DNDEBUG",
        "-O3 -fPIC -flto=auto -ffat-lto-objects",
        "-O1 -fPIC -flto=2 -flto-partition=one -g0",
    ] {
        assert_eq!(build(&here, flags, &["src/a.cc", "src/b.cc"]).1, 0, "{flags}");
        assert_eq!(build(&here, flags, &["src/a.cc", "src/b.cc"]).1, 2, "{flags}");
        assert_eq!(build(&there, flags, &["src/a.cc", "src/b.cc"]).1, 2, "{flags}");
        assert_eq!(build(&third, flags, &["src/b.cc", "src/a.cc"]).1, 2, "{flags}");
    }
    third.write("inc/h.h", "inline int twice(int x) { return x + 2; }\n");
    assert_eq!(build(&third, FLAGS, &["src/a.cc", "src/b.cc"]).1, 0, "what is included counts");
}

#[test]
fn a_name_that_compression_leaves_as_it_was_is_no_reason_for_a_miss() {
    let slots = "struct Slot { int n; void *p; };\nvoid one(); void two();\n\
                 static Slot slots[] = {{1, (void *) &one}, {2, (void *) &two}, {0, nullptr}};\n\
                 struct Spec { const char *name; int size; Slot *slots; };\nstatic Spec spec = {\"name\", 3, slots};\n\
                 extern \"C\" __attribute__((visibility(\"default\"))) void *f() { return &spec; }\n";
    let here = sharing(&[("slots.cc", slots)]);
    let there = copy(&here, "another-folder");
    let plain = here.plain(&format!("g++ {FLAGS} -c {}/slots.cc -o plain.o", shown(&here.root)));
    assert!(plain.status.success());
    let object = std::fs::read(here.root.join("plain.o")).unwrap();
    assert!(holds(&object, &shown(&here.root)), "all is compressed, so that this tests nothing");
    assert_eq!(build(&here, FLAGS, &["slots.cc"]).1, 0);
    assert_eq!(build(&there, FLAGS, &["slots.cc"]).1, 1);
}

#[test]
fn the_object_is_the_compilers_own() {
    // Said, the number that tells it from others is not by chance.
    let project = sharing(&FILES);
    for flags in
        ["", "-fno-fat-lto-objects", "-ffat-lto-objects", "-MD -MF d", "-flto-compression-level=9", "-g"]
    {
        let line =
            format!("g++ -O2 -flto -frandom-seed=0x71 {flags} -Iinc -c {}/src/a.cc", shown(&project.root));
        let before = project.check(&line);
        assert_eq!(project.check(&line), before);
        assert_eq!(project.counters().local(), [2, 1, 1, 0], "{flags}");
    }
}

#[test]
fn what_names_its_folder_is_compiled_in_each() {
    let print = "extern \"C\" const char *f() { return WHERE; }\n";
    let located = format!(
        "#if __has_include(<source_location>)\n#include <source_location>\n\
         static const char *at(std::source_location l = std::source_location::current()) {{ return l.file_name(); }}\n\
         #else\nstatic const char *at(const char *file = __builtin_FILE()) {{ return file; }}\n#endif\n{print}"
    );
    let asserted = "#include <assert.h>\nextern \"C\" int f(int x) { assert(x > 2); return x; }\n";
    let header = format!("#include \"{}\"\n{print}", "names.h");
    let here = sharing(&[
        ("print.cc", print),
        ("located.cc", &located),
        ("assert.cc", asserted),
        ("header.cc", &header),
        ("inc/names.h", "#define NAMED __FILE__\nstatic inline const char *named() { return __FILE__; }\n"),
    ]);
    let there = copy(&here, "another-folder");
    for (flags, source) in [
        ("-DWHERE=__FILE__", "print.cc"),
        ("-DWHERE=__BASE_FILE__", "print.cc"),
        ("-DWHERE=__builtin_FILE()", "print.cc"),
        ("-DWHERE=at() -std=c++2a", "located.cc"),
        ("", "assert.cc"),
        ("-DWHERE=NAMED", "header.cc"),
        ("-DWHERE=named()", "header.cc"),
    ] {
        for fat in ["-fno-fat-lto-objects", "-ffat-lto-objects"] {
            let flags = format!("-O2 -fPIC -flto {fat} {flags}");
            for project in [&here, &there] {
                let (library, hits) = build(project, &flags, &[source]);
                assert!(
                    holds(&library, &format!("{}/", shown(&project.root))),
                    "{flags} {source}: nothing is named"
                );
                assert_eq!(hits, 0, "{flags} {source}");
                assert_eq!(build(project, &flags, &[source]).1, 1, "{flags} {source}");
            }
        }
    }
    // Where nothing comes of it, nothing is bound.
    for (flags, source) in
        [("-DNDEBUG", "assert.cc"), ("-DWHERE=\"\"", "header.cc"), ("-DWHERE=\"x\"", "located.cc -std=c++2a")]
    {
        let (source, more) = source.split_once(' ').unwrap_or((source, ""));
        let flags = format!("-O2 -fPIC -flto {flags} {more}");
        assert_eq!(build(&here, &flags, &[source]).1, 0, "{flags} {source}");
        let (library, hits) = build(&there, &flags, &[source]);
        assert!(!holds(&library, &shown(&here.root)), "{flags} {source}");
        assert_eq!(hits, u64::from(flags.contains("NDEBUG")), "{flags} {source}");
    }
}

#[test]
fn a_header_of_an_isolated_build_that_names_itself_to_nobody_binds_nothing() {
    let guard = "#include <stdexcept>\n[[noreturn]] __attribute__((noinline)) inline void binding_fail(const char *why) { throw std::runtime_error(why); }\n\
                 inline int never(int x) { if (x) { binding_fail(\"unreachable: \" __FILE__); } return x; }\n";
    let project = sharing(&[(
        "a.cc",
        "#include <binding.h>\nextern \"C\" __attribute__((visibility(\"default\"))) int f(int x) { return CALLED; }\n",
    )]);
    let isolation = tempfile::tempdir().unwrap();
    for (flags, expected) in [("-DCALLED=x", [0, 1, 1]), ("-DCALLED=never(x)", [0, 0, 0])] {
        for more in ["", "-ffat-lto-objects", "-frandom-seed=a"] {
            let mut hits = Vec::new();
            for random in ["kx2_1", "9zq", "another"] {
                let folder = format!("{}/pip-build-env-{random}/overlay/include", shown(isolation.path()));
                project.write(&format!("{folder}/binding.h"), guard);
                let all = format!("{FLAGS} {flags} {more} -isystem {folder}");
                let (library, hit) = build(&project, &all, &["a.cc"]);
                assert_eq!(holds(&library, random), flags.contains("never"), "{all}");
                hits.push(hit);
            }
            assert_eq!(hits, expected, "{flags} {more}");
        }
    }
}

#[test]
fn what_is_not_shared_says_why() {
    let here = sharing(&FILES);
    let there = copy(&here, "another-folder");
    for (flags, why) in [
        ("-flto -g", "link-time optimisation with debug information"),
        ("-flto -ffat-lto-objects -g1", "link-time optimisation with debug information"),
        ("-flto -fsanitize=undefined", "sanitizers"),
        ("-fsanitize=undefined -flto", "sanitizers"),
        ("-flto -fdebug-prefix-map=/x=/y", "link-time optimisation with a map of paths"),
        ("-flto -flto-odr-type-merging", "link-time optimisation with `-flto-odr-type-merging`"),
    ] {
        let line = format!("g++ -O2 {flags} -Iinc -c src/b.cc -o b.o");
        for project in [&here, &there] {
            assert!(project.cached(&line).status.success(), "{flags}");
            assert_eq!(project.counters().number("local_hits"), 0, "{flags}");
        }
        let said = text(&there.cached("why --last").stdout);
        assert!(said.contains(&format!("; {why}\n")), "{flags}: {said}");
        assert!(there.cached(&line).status.success());
        assert_eq!(there.counters().number("local_hits"), 1, "{flags}: known in its own folder");
    }
    if program("clang++").is_none() {
        return skip("clang's link-time optimisation", "there is no clang");
    }
    for project in [&here, &there] {
        assert!(project.cached("clang++ -O2 -flto -Iinc -c src/b.cc -o b.o").status.success());
        assert_eq!(project.counters().local(), [1, 0, 1, 0]);
    }
    let said = text(&there.cached("why --last").stdout);
    assert!(said.contains("; link-time optimisation of this compiler\n"), "{said}");
}

#[test]
fn only_who_says_so_is_given_what_others_share() {
    let mut here = sharing(&FILES);
    let mut there = copy(&here, "another-folder");
    let sources = ["src/a.cc", "src/b.cc"];
    assert_eq!(build(&here, FLAGS, &sources).1, 0);
    there.set("CASTWORK_SHARE_LTO", "no");
    assert_eq!(build(&there, FLAGS, &sources).1, 0, "who has not said so compiles");
    let said = text(&there.cached("why --last").stdout);
    assert!(said.contains("`CASTWORK_SHARE_LTO` is not set any more"), "{said}");
    assert_eq!(build(&there, FLAGS, &sources).1, 2);
    here.set("CASTWORK_SHARE_LTO", "no");
    assert_eq!(build(&here, FLAGS, &sources).1, 0, "nor takes what was shared in the same folder");
    let said = text(&here.cached("why --last").stdout);
    assert!(said.contains("; link-time optimisation; hint: CASTWORK_SHARE_LTO=yes shares"), "{said}");
    there.set("CASTWORK_SHARE_LTO", "yes");
    assert_eq!(build(&there, FLAGS, &sources).1, 2, "what was shared at first is there still");
}

#[test]
fn what_the_assembler_reads_when_all_is_linked_is_read_then() {
    let text = "asm(\".section .rodata\\n.globl data\\ndata: .incbin \\\"data.bin\\\"\\n.text\");\n\
                extern const char data[]; extern \"C\" char f() { return data[0]; }\n";
    let here = sharing(&[("a.cc", text), ("data.bin", "first data")]);
    let there = copy(&here, "another-folder");
    let flags = "-O2 -fPIC -flto -fno-fat-lto-objects";
    let (library, _) = build(&here, flags, &["a.cc"]);
    assert!(holds(&library, "first data"));
    there.write("data.bin", "other data");
    let (library, hits) = build(&there, flags, &["a.cc"]);
    assert!(holds(&library, "other data"));
    assert_eq!(hits, 1, "the object holds none of it");
    // With code beside it, it is read by the compile.
    for data in ["third data", "data no. 4"] {
        here.write("data.bin", data);
        let line = format!("g++ -O2 -flto -ffat-lto-objects -c {}/a.cc", shown(&here.root));
        assert!(here.cached(&format!("{line} -o fat.o")).status.success());
        assert!(holds(&std::fs::read(here.root.join("fat.o")).unwrap(), data));
        assert_eq!(here.counters().number("local_hits"), 0);
    }
}

#[test]
fn a_symbol_of_the_programs_own_does_not_make_an_object_one_without_code() {
    let text = "int __gnu_lto_slim;\n\
                asm(\".macro rd a b\\n .\\\\a\\\\b \\\"data.bin\\\"\\n.endm\\n\"\n\
                    \".section .rodata\\n.globl data\\ndata: rd inc bin\\n.text\\n\");\n";
    let here = sharing(&[("a.c", text), ("data.bin", "first data")]);
    for (data, flags) in [
        ("first data", "-flto -fno-lto"),
        ("other data", "-flto -fno-lto"),
        ("third data", "-flto -ffat-lto-objects"),
        ("data no. 4", "-flto -ffat-lto-objects"),
    ] {
        here.write("data.bin", data);
        assert!(here.cached(&format!("gcc -O1 {flags} -fcommon -c a.c -o a.o")).status.success());
        assert!(holds(&std::fs::read(here.root.join("a.o")).unwrap(), data), "{flags}: {data}");
    }
}
