use super::*;

fn parse(line: &str) -> Result<Compile, Reason> {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    Compile::parse(&words, Path::new("/nowhere"))
}

fn refusal(line: &str) -> String {
    parse(line).expect_err(line).to_string()
}

#[test]
fn an_ordinary_compile_is_understood() {
    let compile =
        parse("-O2 -g -DX=1 -D Y -I include -isystem/opt/x -MD -MF a.d -c src/a.cc -o out/a.o").unwrap();
    assert_eq!(compile.source, "src/a.cc");
    assert_eq!(compile.language, Language::Cxx);
    assert_eq!(compile.output, "out/a.o");
    assert!(compile.has_debug);
    assert_eq!(compile.dependency_file_name().as_deref(), Some("a.d"));
    let words: Vec<_> = compile.arguments.iter().flat_map(Argument::words).collect();
    assert_eq!(words, ["-O2", "-g", "-DX=1", "-DY", "-I", "include", "-isystem", "/opt/x"]);
}

#[test]
fn joined_and_separate_spellings_are_one_to_the_key() {
    let joined = parse("-Iinclude -DX -c a.c").unwrap();
    assert_eq!(joined, parse("-I include -D X -c a.c").unwrap());
}

#[test]
fn outputs_and_dependency_files_are_named_as_the_compiler_names_them() {
    let check = |line: &str, output: &str, file: &str| {
        let compile = parse(line).unwrap();
        assert_eq!(
            (compile.output.as_str(), compile.dependency_file_name().as_deref()),
            (output, Some(file)),
            "{line}"
        );
    };
    check("-MD -c src/a.b.c", "a.b.o", "a.b.d");
    check("-MD -c src/a.c -o out.d/a.c.o", "out.d/a.c.o", "out.d/a.c.d");
    check("-MMD -c a.c -o out.d/a", "out.d/a", "out.d/a.d");
    check("-MD -MF x -c a.c", "a.o", "x");
    assert_eq!(parse("-c a.c").unwrap().dependency_file_name(), None);
}

#[test]
fn debug_information_is_seen_whichever_way_it_is_asked_for() {
    for (line, has_debug) in [
        ("-c a.c", false),
        ("-g -c a.c", true),
        ("-g -g0 -c a.c", false),
        ("-g0 -ggdb3 -c a.c", true),
        ("-gdwarf-4 -c a.c", true),
    ] {
        assert_eq!(parse(line).unwrap().has_debug, has_debug, "{line}");
    }
    assert_eq!(parse("-gdwarf-4 -c a.c").unwrap().dwarf_version, Some(4));
}

#[test]
fn what_is_not_surely_right_is_passed_through_with_its_reason() {
    for (line, reason) in [
        ("a.c -o a", "linking"),
        ("--version", "asks about the compiler"),
        ("-c", "no source"),
        ("-c a.c b.c", "several sources"),
        ("-c -", "source from standard input"),
        ("-c a.s", "assembler source"),
        ("-c a.S", "assembler source"),
        ("-c a.i", "preprocessed source"),
        ("-c a.h", "precompiled header"),
        ("-x c++-header -c a.h", "precompiled header"),
        ("-E a.c", "preprocessing only"),
        ("-S a.c", "compiling to assembler only"),
        ("-M a.c", "dependencies only"),
        ("-c a.c -o -", "output is no file"),
        ("-c a.c -o /dev/null", "output is no file"),
        ("-c a.c -MF x", "`-MF`, `-MT`, `-MQ` or `-MP` without `-MD`"),
        ("-c a.c --frobnicate", "unknown flag `--frobnicate`"),
        ("-x c -c /dev/stdin", "source is no file"),
        ("-x c -c //dev/fd/0", "source is no file"),
        ("-c a.c -include /proc/self/fd/3", "source is no file"),
        ("-c a.c -o /proc/self/fd/3", "output is no file"),
        ("-c a.c -fplugin=x.so", "compiler plug-in"),
        ("-c a.c -march=native", "code for this very processor (`native`)"),
        ("-c a.c -fprofile-use=x", "profiling or coverage"),
        ("-c a.c --coverage", "profiling or coverage"),
        ("-c a.c -gsplit-dwarf", "writes further files"),
        ("-c a.c -save-temps=obj", "writes further files"),
        ("-c a.c -fdump-tree-all", "dumps of the compiler's insides"),
        ("-c a.c -specs=x", "specs from a file"),
        ("-c a.c -B/opt", "another place for the compiler's parts (`-B`)"),
        ("-c a.c --sysroot=/x", "another system root"),
        ("-c a.c -I=/x", "another system root"),
        ("-c a.c -Xclang -load", "words for a sub-program"),
        ("-c a.c -Wp,-MD,x", "words for a sub-program"),
        ("-c a.c -Wa,-ahls=x", "words for the assembler"),
        ("-c a.c -arch x86_64 -arch arm64", "several architectures"),
        ("-c a.c -fmodules", "modules"),
        ("-c a.c -frewrite-map-file=map", "reads a list from a file"),
        ("-c a.c -ftomorrow=x/y", "flag that may name a file: `-ftomorrow=x/y`"),
        ("-c a.c -ftomorrow=list.txt", "flag that may name a file: `-ftomorrow=list.txt`"),
        // The folder of tests is the crate's.
        ("-c a.c -ftomorrow=Cargo.toml", "flag that may name a file: `-ftomorrow=Cargo.toml`"),
        ("-c a.c -mtomorrow=/x", "flag that may name a file: `-mtomorrow=/x`"),
        ("-c a.c -o", "`-o` without its value"),
        ("-c a.c -DBUILT=__TIME__", "`__TIME__` in a macro of the command line"),
        ("-c a.c -Wp,-DHAS=__has_include", "`__has_include` in a macro of the command line"),
        ("-c a.c @absent", "response file can't be read"),
    ] {
        assert_eq!(refusal(line), reason, "{line}");
    }
}

#[test]
fn words_for_sub_programs_that_are_harmless_are_let_through() {
    for line in [
        "-c a.c -Wp,-D_FORTIFY_SOURCE=2,-UX",
        "-c a.c -Wa,--noexecstack",
        "-c a.c -Wl,-rpath,/x -L/y -lz",
        "-c a.c -march=armv8.2-a -fgnuc-version=4.2.1 -fvisibility=hidden",
    ] {
        parse(line).expect(line);
    }
}

#[test]
fn a_language_said_for_the_source_wins_over_its_name() {
    assert_eq!(parse("-x c++ -c a.c").unwrap().language, Language::Cxx);
    assert_eq!(parse("-x c++ -x none -c a.c").unwrap().language, Language::C);
    assert_eq!(parse("-c a.c -x c++").unwrap().language, Language::C);
    assert_eq!(parse("-c a.c").unwrap().language_for(true), Language::Cxx);
    assert_eq!(parse("-x c -c a.c").unwrap().language_for(true), Language::C);
}

#[test]
fn every_row_that_is_refused_is_refused_with_its_reason() {
    use super::flags::{Attach, FLAGS, Meaning, find};
    for flag in FLAGS {
        let Meaning::Refuse(why) = flag.meaning else { continue };
        let spellings = match flag.attach {
            Attach::Exact => vec![flag.spelling.to_owned()],
            Attach::Separate => vec![format!("{} value", flag.spelling)],
            Attach::Either => vec![format!("{}value", flag.spelling), format!("{} value", flag.spelling)],
            Attach::Family => vec![flag.spelling.to_owned(), format!("{}=value", flag.spelling)],
        };
        for spelling in spellings {
            // A row within the family has a test of its own.
            let word = spelling.split(' ').next().unwrap();
            if find(word).unwrap().spelling == flag.spelling {
                assert_eq!(refusal(&format!("{spelling} -c a.c")), why, "{spelling}");
                assert_eq!(refusal(&format!("-c a.c {spelling}")), why, "{spelling}");
            }
        }
    }
}
