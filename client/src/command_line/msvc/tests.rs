use super::*;

fn words_of(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn parsed(line: &str, driver: Driver) -> Result<Compile, Reason> {
    parse(&words_of(line), Path::new("/nowhere"), driver)
}

fn understood(line: &str) -> Compile {
    parsed(line, Driver::ClangCl).unwrap_or_else(|reason| panic!("{line}: {reason}"))
}

fn said(compile: &Compile) -> Vec<String> {
    compile.arguments.iter().flat_map(words).collect()
}

/// Lines as builds write them, with the words that decide the key.
const RECORDED: &[(&str, &str, &str, &str)] = &[
    // CMake and Ninja, clang-cl.
    (
        "/nologo -TP -DX -IC:\\src\\inc /DWIN32 /D_WINDOWS /W3 /GR /EHsc /O2 /Ob2 /DNDEBUG -MD -std:c++17 /showIncludes \
         /FoCMakeFiles/o.dir/a.cc.obj /FdCMakeFiles/o.dir/ -c -- a.cc",
        "a.cc",
        "CMakeFiles/o.dir/a.cc.obj",
        "-DX -I C:\\src\\inc -DWIN32 -D_WINDOWS -W3 -GR -EHsc -O2 -Ob2 -DNDEBUG -MD -std:c++17 -showIncludes",
    ),
    // CMake and Ninja, debug, with headers of the system.
    (
        "/nologo /DWIN32 /W4 /Z7 /Od /RTC1 -MDd /external:Ithird /external:I other /imsvcC:/sdk /FIconfig.h /showIncludes \
         /Foa.obj /FS -c a.c",
        "a.c",
        "a.obj",
        "-DWIN32 -W4 -Z7 -Od -RTC1 -MDd -clang:-isystemthird -clang:-isystemother -imsvcC:/sdk -FI config.h -showIncludes",
    ),
    // MSBuild's way of naming one source and a folder.
    (
        "/c /Iinc /nologo /W3 /WX- /diagnostics:column /sdl /O2 /Oi /D NDEBUG /D _UNICODE /EHsc /MD /GS /Gy \
         /fp:precise /Zc:wchar_t /Zc:forScope /Zc:inline /permissive- /Fox64/Release/ /Fdx64/vc143.pdb /Gd /TP \
         /errorReport:queue src/main.cpp",
        "src/main.cpp",
        "x64/Release/main.obj",
        "-I inc -W3 -WX- -diagnostics:column -sdl -O2 -Oi -DNDEBUG -D_UNICODE -EHsc -MD -GS -Gy -fp:precise -Zc:wchar_t \
         -Zc:forScope -Zc:inline -permissive- -Gd -errorReport:queue",
    ),
];

#[test]
fn recorded_lines_are_understood_by_both() {
    for (line, source, output, words) in RECORDED {
        let compile = understood(line);
        assert_eq!((compile.source.as_str(), compile.output.as_str()), (*source, *output), "{line}");
        assert_eq!(said(&compile), words_of(words), "{line}");
        assert_eq!(compile.has_debug, line.contains("/Z7"), "{line}");
        if !line.contains("--") {
            assert_eq!(parsed(line, Driver::Cl).as_ref(), Ok(&compile), "{line}");
        }
    }
    let line = "-fcolor-diagnostics --target=x86_64-pc-windows-msvc -m64 -mavx2 -fno-strict-aliasing -Wno-unused \
                /clang:-O3 /clang:-fno-rtti /clang:-isystemsdk /c a.cc";
    let compile = understood(line);
    let words = "--target=x86_64-pc-windows-msvc -m64 -mavx2 -fno-strict-aliasing -Wno-unused -clang:-O3 -clang:-fno-rtti \
                 -clang:-isystemsdk";
    assert_eq!(said(&compile), words_of(words));
    assert_eq!(compile.color, Some(true));
}

#[test]
fn values_apart_or_joined_and_both_signs_are_one_to_the_key() {
    assert_eq!(
        understood("/Iinc /DX /UY /FIa.h /O2 /c a.c"),
        understood("-I inc -D X -U Y -FI a.h -O2 -c a.c")
    );
    assert_eq!(understood("/Zi /Fdx.pdb /FS /c a.c").has_debug, understood("/Z7 /c a.c").has_debug);
    assert_eq!(understood("/nologo /FS /Fdx /c a.c"), understood("/c a.c"));
}

#[test]
fn the_language_is_said_or_in_the_name() {
    for (line, language) in [
        ("/c a.c", Language::C),
        ("/c a.cpp", Language::Cxx),
        ("/c /TP a.c", Language::Cxx),
        ("/c /Tcx", Language::C),
        ("/c /Tp x.c", Language::Cxx),
    ] {
        assert_eq!(understood(line).language, language, "{line}");
    }
}

/// Lines that are passed through, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("/Fea.exe a.c", "linking"),
    ("a.c", "linking"),
    ("/c a.c /link x.lib", "linking"),
    ("/c /LD a.c", "linking"),
    ("/c a.c b.c", "several sources"),
    ("/c /MP a.c", "several compiles at once (`/MP`)"),
    ("/c /MP8 a.c", "several compiles at once (`/MP`)"),
    ("/c", "no source"),
    ("/c -", "source from standard input"),
    ("/E a.c", "preprocessing only"),
    ("/EP a.c", "preprocessing only"),
    ("/P /c a.c", "preprocessing only"),
    ("/Zs a.c", "checking only"),
    ("/c /Fa a.c", "listing of assembler (`/FA`)"),
    ("/c /FAcs a.c", "listing of assembler (`/FA`)"),
    ("/c /FRx.sbr a.c", "writes further files"),
    ("/c /sourceDependencies x.json a.c", "writes further files"),
    ("/c /Yupch.h a.c", "precompiled header"),
    ("/c /Ycpch.h a.c", "precompiled header"),
    ("/c /Fpx.pch a.c", "precompiled header"),
    ("/c /ZI a.c", "debug information for editing while running (`/ZI`)"),
    ("/c /JMC a.c", "names of files in symbols (`/JMC`)"),
    ("/c /GL a.c", "link-time optimisation"),
    ("/c /openmp a.c", "OpenMP (`/openmp`)"),
    ("/c /fsanitize=address a.c", "sanitizers of clang"),
    ("/c -fsanitize=address a.c", "sanitizers of clang"),
    ("/c -flto a.c", "unknown flag `-flto`"),
    ("/c -march=native a.c", "code for this very processor (`native`)"),
    ("/c -fplugin=x.so a.c", "compiler plug-in"),
    ("/c -Xclang -O1 a.c", "unknown flag `-Xclang`"),
    ("/c /DX#1 a.c", "`#` in a macro of the command line"),
    ("/c /heard-of-by-nobody a.c", "unknown flag `/heard-of-by-nobody`"),
    ("/c /Wv:18 a.c", "unknown flag `/Wv:18`"),
    ("/c /wdx a.c", "unknown flag `/wdx`"),
    ("/c -std=c++17 a.c", "unknown flag `-std=c++17`"),
    ("/c -isystem x a.c", "unknown flag `-isystem`"),
    ("/c /clang:-MD a.c", "`/clang:-MD`"),
    ("/c /clang:-oa.o a.c", "`/clang:-oa.o`"),
    ("/c /clang:-flto a.c", "`/clang:-flto`"),
    ("/c /Fo:a.obj a.c", "output of an unusual name"),
    ("/c /Foout\\ a.c", "output of an unusual name"),
    ("/c /Foa.obj /Fob.obj a.c", "several outputs"),
    ("/c /Fo a.c", "unknown flag `/Fo`"),
    ("/c /Fo/dev/null a.c", "output is no file"),
    ("/c src\\a.c", "source of an unusual name"),
    ("/c a.txt", "source of an unknown language"),
    ("/c /TC /TP a.c", "both `/TC` and `/TP`"),
    ("/c /DX=__DATE__ a.c", "`__DATE__` in a macro of the command line"),
    ("/c a.c /I", "`/I` without its value"),
    ("--version", "asks about the compiler"),
    ("/?", "asks about the compiler"),
];

#[test]
fn what_is_not_understood_is_passed_through() {
    for (line, reason) in REFUSED {
        assert_eq!(parsed(line, Driver::ClangCl).expect_err(line).to_string(), *reason, "{line}");
    }
    for (line, reason) in [
        ("/c /Zi a.c", "debug information in a file of many compiles (`/Zi`)"),
        ("/c -Wno-unused a.c", "unknown flag `-Wno-unused`"),
        ("/c /clang:-O3 a.c", "unknown flag `/clang:`"),
        ("/c -- a.c", "unknown flag `--`"),
    ] {
        assert_eq!(parsed(line, Driver::Cl).expect_err(line).to_string(), reason, "{line}");
    }
}

#[test]
fn a_value_is_not_looked_for_in_the_next_line_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("one", "/c /I inc a.c");
    write("two", "/c /I\ninc a.c");
    let of = |name: &str| parse(&[format!("@{name}")], folder.path(), Driver::ClangCl);
    assert_eq!(of("one"), parsed("/c /Iinc a.c", Driver::ClangCl));
    assert_eq!(of("two").unwrap_err().to_string(), "`/I` without its value");
}

#[test]
fn drivers_are_known_by_their_names() {
    for (name, driver) in [
        ("/usr/bin/clang-cl", Some(Driver::ClangCl)),
        ("clang-cl-14", Some(Driver::ClangCl)),
        ("clang-cl.exe", Some(Driver::ClangCl)),
        ("x86_64-pc-windows-msvc-clang-cl", Some(Driver::ClangCl)),
        ("cl", Some(Driver::Cl)),
        ("cl.exe", Some(Driver::Cl)),
        ("clang", None),
        ("cl-tool", None),
        ("tcl", None),
    ] {
        assert_eq!(Driver::named(Path::new(name)), driver, "{name}");
    }
}
