"""From pictures to visual tokens and back: which keys are visual, where each lies. A file a kind of layout."""
