"""Generated from ``proto/`` by ``make proto``. Do not edit; a test says when it is out of date."""
