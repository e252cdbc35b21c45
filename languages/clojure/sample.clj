(let [numbers (map parse-long (.split (read-line) " "))]
  (println (reduce + numbers)))
