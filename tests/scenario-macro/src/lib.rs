//! The `#[scenario]` attribute: one function over a `Run` becomes one test of the `net` suite.
//!
//! `weft-tests` re-exports it; nothing else uses it. It keeps no state.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, parse_macro_input};

/// Turns `fn name(run: &mut Run)` into a `#[test]` that gives the function a run of its own.
///
/// The function returns `()` or `anyhow::Result<()>`. The scenario's name is `area::name`, where the area is
/// the last segment of the module's path. Attributes such as `#[ignore]` stay on the test.
#[proc_macro_attribute]
pub fn scenario(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut function = parse_macro_input!(item as ItemFn);
    if !arguments.is_empty() {
        return Error::new_spanned(&function.sig, "#[scenario] takes no arguments")
            .into_compile_error()
            .into();
    }
    if function.sig.inputs.len() != 1 || function.sig.asyncness.is_some() {
        return Error::new_spanned(
            &function.sig,
            "a scenario is `fn name(run: &mut Run)` or `fn name(run: &mut Run) -> Result<()>`",
        )
        .into_compile_error()
        .into();
    }
    let name = function.sig.ident.clone();
    let attributes = std::mem::take(&mut function.attrs);
    quote! {
        #(#attributes)*
        #[test]
        fn #name() {
            #function
            ::weft_tests::harness::run_scenario(
                ::std::module_path!(),
                ::std::stringify!(#name),
                |run| ::weft_tests::harness::Verdict::into_result(#name(run)),
            );
        }
    }
    .into()
}
