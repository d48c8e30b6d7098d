"""From pictures to visual tokens and back: which keys are visual, where each lies. One file for each kind of layout."""
