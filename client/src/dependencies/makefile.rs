//! Reads the names of prerequisites out of a dependency file, as compilers write them for Make.

/// The prerequisites of the first rule, in order.
///
/// Rules after it are those of `-MP`, which have none.
pub(crate) fn prerequisites(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut is_past_targets = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek().copied()) {
            ('\\', Some('\n')) => {
                letters.next();
                end(&mut names, &mut name, is_past_targets);
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
                is_past_targets = true;
                name.clear();
            }
            ('\n', _) => {
                end(&mut names, &mut name, is_past_targets);
                if is_past_targets {
                    return names;
                }
            }
            (' ' | '\t' | '\r', _) => end(&mut names, &mut name, is_past_targets),
            _ => name.push(letter),
        }
    }
    end(&mut names, &mut name, is_past_targets);
    names
}

fn end(names: &mut Vec<String>, name: &mut String, is_prerequisite: bool) {
    if !name.is_empty() && is_prerequisite {
        names.push(std::mem::take(name));
    }
    name.clear();
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
        assert_eq!(prerequisites(""), Vec::<String>::new());
    }
}
