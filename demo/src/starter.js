export const QUERY = "Can I get a refund?";

export const LINES = [
  "The kettle is on, so tea will be ready in a minute.",
  "I am boiling water for a hot drink.",
  "Our train was cancelled because of the snow.",
  "Heavy snowfall stopped all rail traffic this morning.",
  "How do I send back a jacket that does not fit?",
  "The shop returns your money within thirty days.",
  "She practises the violin for an hour every evening.",
  "A string quartet played in the town hall.",
  "The cat is asleep on the warm laptop.",
  "Tomatoes need sun, water and a bit of patience.",
  "The library opens at nine on weekdays.",
  "He mended the brakes of his bicycle with a new cable.",
];
