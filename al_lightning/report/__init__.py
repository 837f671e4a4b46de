"""Tables and curves for people; rich and matplotlib are loaded when one is drawn."""
