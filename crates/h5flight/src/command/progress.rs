//! Progress of long transfers, on standard error; hidden where that is no terminal or the output is JSON.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::output::{Form, clean};

/// A bar that counts bytes.
pub fn bytes_bar(form: Form, label: &str, bytes: u64) -> ProgressBar {
    bar(form, label, bytes, "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
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
    let target = match form {
        Form::People => ProgressDrawTarget::stderr(),
        Form::Json => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(template).expect("the templates above are well formed");
    let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style).with_message(clean(label));
    // Also when it is dropped on the way to an error: the sentence that follows begins on a line of its own.
    bar.with_finish(ProgressFinish::AndClear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        bytes_bar(Form::People, "a", 1).finish_and_clear();
        rows_bar(Form::Json, "a", 1).finish_and_clear();
        files_bar(Form::People, "a").finish_and_clear();
    }
}
