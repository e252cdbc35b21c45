object Main {
  def main(args: Array[String]): Unit = {
    val Array(a, b) = io.StdIn.readLine().split(" ").map(_.toLong)
    println(a + b)
  }
}
