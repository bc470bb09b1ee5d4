//! The texts of pages by key, in the reader's language, from `locales/console.yml`. A key without a text is a mistake that a test
//! finds; at run time the key itself is shown.

use std::borrow::Cow;

use crate::customers::Language;

/// A reader's language, to be asked for texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Language);

impl Words {
    /// The language's tag for `lang=` and the locale files.
    pub(crate) fn tag(self) -> &'static str {
        match self.0 {
            Language::Zh => "zh-CN",
            Language::En => "en",
        }
    }

    /// The text of `key`.
    pub(crate) fn t(self, key: &str) -> Cow<'static, str> {
        match crate::_rust_i18n_try_translate(self.tag(), key) {
            Some(text) => Cow::Owned(text.into_owned()),
            None => Cow::Owned(key.to_owned()),
        }
    }

    /// The text of `group.name`: for names of enums. An unknown name (a newer agent's code, say) is shown as it is.
    pub(crate) fn of(self, group: &str, name: &str) -> Cow<'static, str> {
        let text = self.t(&format!("{group}.{name}"));
        if text.starts_with(group) && text.ends_with(name) && text.len() == group.len() + 1 + name.len() {
            Cow::Owned(name.to_owned())
        } else {
            text
        }
    }

    /// A component (`disk:/var`, or `disk./var` in metric names) with its kind in words and its own name as it is: `Disk /var`.
    pub(crate) fn component(self, name: &str) -> String {
        let (kind, rest) = name.split_once([':', '.']).unwrap_or((name, ""));
        format!("{} {rest}", self.of("component", kind)).trim_end().to_owned()
    }

    /// The text of `key` with `%{n}` and the like replaced.
    pub(crate) fn with(self, key: &str, values: &[(&str, &dyn std::fmt::Display)]) -> String {
        let mut text = self.t(key).into_owned();
        for (name, value) in values {
            text = text.replace(&format!("%{{{name}}}"), &value.to_string());
        }
        text
    }

    /// Whether `key` has a text in this language.
    #[cfg(test)]
    pub(crate) fn knows(self, key: &str) -> bool {
        crate::_rust_i18n_try_translate(self.tag(), key).is_some()
    }
}
