"""Drawing and answering of HieraQuery."""
