// Fills memory outside the heap, up to 2 GiB.
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

public class Main {
    public static void main(String[] args) {
        List<ByteBuffer> all = new ArrayList<>();
        for (int i = 0; i < 128; i++) all.add(ByteBuffer.allocateDirect(16 << 20));
        System.out.println("had 2 GiB");
    }
}
