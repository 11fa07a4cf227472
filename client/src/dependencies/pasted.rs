//! [`Pieces`]: whether a macro could paste a word together out of pieces that stand in the files.

/// The words that are watched for.
const WORDS: [&[u8]; 6] =
    [b"__DATE__", b"__TIME__", b"__TIMESTAMP__", b"__FILE__", b"__BASE_FILE__", b"__builtin_FILE"];

/// How many of them stand for a date; the others stand for the name of a file.
const DATES: usize = 3;

/// Most pieces that a word is pasted of: one for each letter.
const PIECES_MAX: usize = LENGTH_MAX;

/// Longest of them.
const LENGTH_MAX: usize = 14;

/// Which two letters stand together in a watched word: most words of a file are none of its pieces by their first two or three.
const PAIRS: [u64; 256] = {
    let mut pairs = [0; 256];
    let mut word = 0;
    while word < WORDS.len() {
        let mut at = 0;
        while at + 1 < WORDS[word].len() {
            // Letters of ASCII, which are less than 128; half of them share a bit with another.
            pairs[WORDS[word][at] as usize] |= 1 << (WORDS[word][at + 1] % 64);
            at += 1;
        }
        word += 1;
    }
    pairs
};

/// Which pieces of the watched words have been seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    /// For each watched word and each place in it, a bit for each place where a piece that begins there may end.
    ends: [[u16; LENGTH_MAX]; WORDS.len()],
}

impl Pieces {
    /// Takes a word of a file.
    pub(super) fn see(&mut self, piece: &[u8]) {
        if piece.len() >= LENGTH_MAX {
            return;
        }
        let is_pair = |pair: &[u8]| PAIRS[usize::from(pair[0])] & (1 << (pair[1] % 64)) != 0;
        let may_be_one = match piece {
            [] => false,
            [only] => WORDS.iter().any(|word| word.contains(only)),
            _ => piece.windows(2).all(is_pair),
        };
        if !may_be_one {
            return;
        }
        for (word, ends) in WORDS.iter().zip(&mut self.ends) {
            if piece.len() >= word.len() {
                continue;
            }
            for begin in 0..=word.len() - piece.len() {
                if word[begin..].starts_with(piece) {
                    ends[begin] |= 1 << (begin + piece.len());
                }
            }
        }
    }

    /// Takes the pieces of another file.
    pub(super) fn join(&mut self, other: &Self) {
        for (ends, more) in self.ends.iter_mut().flatten().zip(other.ends.iter().flatten()) {
            *ends |= more;
        }
    }

    /// Whether the name of a file could be pasted.
    pub(super) fn make_name_of_file(&self) -> bool {
        (DATES..WORDS.len()).any(|word| self.make(word))
    }

    /// Whether a date could be pasted.
    pub(super) fn make_date(&self) -> bool {
        (0..DATES).any(|word| self.make(word))
    }

    fn make(&self, word: usize) -> bool {
        let mut reached: u16 = 1;
        for _ in 0..PIECES_MAX {
            let from = reached;
            for (begin, ends) in self.ends[word].iter().enumerate() {
                if from & (1 << begin) != 0 {
                    reached |= ends;
                }
            }
        }
        reached & (1 << WORDS[word].len()) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(words: &[&str]) -> Pieces {
        let mut pieces = Pieces::default();
        for word in words {
            pieces.see(word.as_bytes());
        }
        pieces
    }

    #[test]
    fn words_that_pieces_could_make_are_seen() {
        for words in [&["__DA", "TE__"][..], &["__", "TIME"], &["_", "TIMESTAMP"]] {
            assert!(pieces(words).make_date(), "{words:?}");
            assert!(!pieces(words).make_name_of_file(), "{words:?}");
        }
        for words in [&["__FI", "LE__"][..], &["_", "BASE_FILE"], &["__builtin_", "FILE"]] {
            assert!(pieces(words).make_name_of_file(), "{words:?}");
        }
    }

    #[test]
    fn words_that_are_not_all_there_make_nothing() {
        for words in [&["__DATE__"][..], &["TIME", "DATE"]] {
            assert!(!pieces(words).make_date(), "{words:?}");
        }
    }

    #[test]
    fn pieces_of_several_files_are_taken_together() {
        let mut one = pieces(&["__DA"]);
        one.join(&pieces(&["TE__"]));
        assert!(one.make_date());
    }
}
