//! How results are shown, kept, compared and judged. Functions take values and return text; files are the affair of
//! [`command_line`] alone.
//!
//! | file | what it makes |
//! |---|---|
//! | [`json`] | the file that holds a result whole, and its reading |
//! | [`hgrm`] | percentiles for the plotter of HdrHistogram |
//! | [`html`] | the page with pictures |
//! | [`command_line`] | `outpour bench report` and `outpour bench compare` |
//! | [`table`] | the terminal's table |
//! | [`compare`] | runs of two sides and more against each other |
//! | [`requirement`] | `--require`: thresholds, and whether they are met |
//! | [`verdict`] | the outcome in plain words |
//! | [`figure`] | the figures that can be named: in a requirement and in a comparison |
//! | [`grid`] | columns of text |
//! | [`numbers`] | numbers with their units, as people read them |

pub mod command_line;
pub mod compare;
pub mod figure;
pub mod grid;
pub mod hgrm;
pub mod html;
pub mod json;
pub mod numbers;
pub mod requirement;
pub mod table;
pub mod verdict;
