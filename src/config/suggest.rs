//! "Did you mean …?" for an unknown word.

/// The known word nearest to `word`, if it is near enough to be a typing error.
#[must_use]
pub fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let allowed = (word.chars().count() / 3).max(1);
    let near = known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .filter(|(distance, _)| *distance <= allowed);
    near.min_by_key(|(distance, _)| *distance).map(|(_, k)| k)
}

/// The end of a sentence: `, did you mean …?` or nothing.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    closest(word, known).map_or_else(String::new, |k| format!(", did you mean `{k}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["timeout", "min_awake", "check_every"];
        assert_eq!(closest("tiemout", known), Some("timeout"));
        assert_eq!(closest("min-awake", known), Some("min_awake"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(did_you_mean("x", known), "");
        assert_eq!(
            closest("shpo", ["shop", "blog"]),
            Some("shop"),
            "two letters in the wrong order are one slip"
        );
    }
}
