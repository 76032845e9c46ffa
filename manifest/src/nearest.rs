//! The nearest known word to one that is unknown.

/// Words longer than this are not compared: nobody mistypes that much, and the cost is quadratic.
const CHARS_MAX: usize = 64;

/// The candidate that `word` is most probably a misspelling of, if any is near enough: a third of
/// its characters may be wrong. Letter case, `-` and `_` do not count, so `max_restarts` finds
/// `maxRestarts`. Of equally near candidates the first wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > CHARS_MAX {
        return None;
    }
    let word = plain(word);
    let allowed = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).take(CHARS_MAX).collect()
}

/// The optimal string alignment distance: insertions, deletions, substitutions and swaps of
/// neighbours each count 1 (Damerau 1964; restricted form).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substituted = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = substituted.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_misspellings_and_nothing_else() {
        let fields = ["name", "profile", "replicas", "env", "maxRestarts"];
        for (word, found) in [
            ("replica", Some("replicas")),
            ("profiel", Some("profile")),
            ("max_restarts", Some("maxRestarts")),
            ("NAME", Some("name")),
            ("evn", Some("env")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, fields), found, "{word}");
        }
        assert_eq!(nearest(&"n".repeat(10_000), fields), None);
    }

    #[test]
    fn distance_counts_a_swap_once() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("abcd"), &chars("abdc")), 1);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
