"""What users see: tables, amounts and progress. It shows what it is given, and knows no kind and no cluster."""
