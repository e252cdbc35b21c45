//! The HTTP border of Gavel.
