"""Pure numerics: functions of arrays, without names, files or settings."""
