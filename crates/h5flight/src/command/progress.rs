//! Progress of long transfers, on standard error; hidden where that is no terminal or the output is JSON.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::failure::Failure;
use crate::output::{Form, clean, note};

const BYTES: &str = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Bars of transfers that run side by side.
#[derive(Clone)]
pub struct Bars {
    form: Form,
    all: MultiProgress,
}

impl Bars {
    /// None yet.
    pub fn new(form: Form) -> Self {
        Self { form, all: MultiProgress::with_draw_target(target(form)) }
    }

    /// One more, that counts bytes.
    pub fn bytes(&self, label: &str, bytes: u64) -> ProgressBar {
        self.all.add(bar(self.form, label, bytes, BYTES))
    }

    /// Writes something while the bars are away.
    pub fn aside(&self, write: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        self.all.suspend(write)
    }

    /// A note for people, above the bars.
    pub fn note(&self, text: &str) {
        if self.form == Form::People {
            self.all.suspend(|| note(text));
        }
    }
}

/// A bar that counts bytes.
pub fn bytes_bar(form: Form, label: &str, bytes: u64) -> ProgressBar {
    bar(form, label, bytes, BYTES)
}

/// A bar that counts rows.
pub fn rows_bar(form: Form, label: &str, rows: u64) -> ProgressBar {
    bar(form, label, rows, "{msg} {bar:24} {human_pos}/{human_len} rows {eta}")
}

/// A bar that counts files, whose number may not be known yet.
pub fn files_bar(form: Form, label: &str) -> ProgressBar {
    bar(form, label, 0, "{msg} {bar:24} {human_pos}/{human_len} files")
}

fn bar(form: Form, label: &str, length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates above are well formed");
    let bar = ProgressBar::with_draw_target(Some(length), target(form)).with_style(style).with_message(clean(label));
    // Also when it is dropped on the way to an error: the sentence that follows begins on a line of its own.
    bar.with_finish(ProgressFinish::AndClear)
}

fn target(form: Form) -> ProgressDrawTarget {
    match form {
        Form::People => ProgressDrawTarget::stderr(),
        Form::Json => ProgressDrawTarget::hidden(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        Bars::new(Form::People).bytes("a", 1).finish_and_clear();
        rows_bar(Form::Json, "a", 1).finish_and_clear();
        files_bar(Form::People, "a").finish_and_clear();
    }
}
