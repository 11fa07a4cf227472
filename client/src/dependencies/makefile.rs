//! Reads the names of targets and prerequisites out of a dependency file, as compilers write them for Make.

/// The prerequisites of the first rule, in order.
///
/// Rules after it are those of `-MP`, which have none.
pub(crate) fn prerequisites(text: &str) -> Vec<String> {
    depfile_rule(text).1
}

/// The targets and the prerequisites of the first rule, in order.
pub fn depfile_rule(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut targets, mut names) = (Vec::new(), Vec::new());
    let mut name = String::new();
    let mut is_past_targets = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek().copied()) {
            ('\\', Some('\n')) => {
                letters.next();
                end(if is_past_targets { &mut names } else { &mut targets }, &mut name);
            }
            // Before a blank, `2n + 1` backslashes stand for `n` and the blank.
            ('\\', Some(next @ (' ' | '#' | ':'))) => {
                letters.next();
                name.push(next);
            }
            ('$', Some('$')) => {
                letters.next();
                name.push('$');
            }
            (':', Some(' ' | '\n' | '\\' | '\t') | None) if !is_past_targets => {
                end(&mut targets, &mut name);
                is_past_targets = true;
            }
            ('\n', _) => {
                if is_past_targets {
                    end(&mut names, &mut name);
                    return (targets, names);
                }
                name.clear();
                targets.clear();
            }
            (' ' | '\t' | '\r', _) => end(if is_past_targets { &mut names } else { &mut targets }, &mut name),
            _ => name.push(letter),
        }
    }
    if is_past_targets {
        end(&mut names, &mut name);
    }
    (targets, names)
}

fn end(names: &mut Vec<String>, name: &mut String) {
    if !name.is_empty() {
        names.push(std::mem::take(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_make_reads_them() {
        let text =
            "out/a.o b\\ c.o: a.cc \\\n /usr/include/x.h \\\n with\\ blank.h a\\#b.h a$$b.h c:d.h\n\nx.h:\n";
        assert_eq!(
            prerequisites(text),
            ["a.cc", "/usr/include/x.h", "with blank.h", "a#b.h", "a$b.h", "c:d.h"]
        );
        assert_eq!(prerequisites("a.o: a.c"), ["a.c"]);
        assert_eq!(depfile_rule("x.pb.h \\\n  x.pb.cc: a.proto").0, ["x.pb.h", "x.pb.cc"]);
        assert_eq!(prerequisites(""), Vec::<String>::new());
    }
}
